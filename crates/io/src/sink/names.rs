//! Names of files and folders made of texts that come from elsewhere: no text decides where something is written.

use yolo_lat_core::fingerprint::Fingerprint;

/// Bytes of the longest name that usual file systems take.
pub(super) const LONGEST: usize = 255;

/// Names that Windows keeps for devices, whatever their extension.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "com", "lpt"];

/// A folder's name for a class, whatever it is called: one component, no hidden or reserved one, not too long.
pub(super) fn folder_name(class_name: &str, class: usize) -> String {
    let forbidden = |letter: char| letter.is_control() || "/\\:*?\"<>|".contains(letter);
    let clean: String = class_name.chars().map(|letter| if forbidden(letter) { '_' } else { letter }).collect();
    // Windows drops dots and blanks at the end; a dot at the beginning hides.
    let clean = clean.trim_end_matches(['.', ' ']).trim_start();
    let stem = clean.split('.').next().unwrap_or_default().to_lowercase();
    let is_device = DEVICES.contains(&stem.trim_end_matches(|letter: char| letter.is_ascii_digit()));
    match clean {
        "" => format!("class{class}"),
        _ if is_device || clean.starts_with('.') => format!("_{clean}"),
        _ => shortened(clean, LONGEST),
    }
}

/// At most `most` bytes of a name; what is cut off is replaced by a number made of the whole name, so that names stay apart.
pub(super) fn shortened(name: &str, most: usize) -> String {
    if name.len() <= most {
        return name.to_owned();
    }
    // The same for every version of this program, which finds files of an earlier run by their names.
    let mut hash = Fingerprint::default();
    hash.add(name.as_bytes());
    let tail = format!("~{}", &hash.text()[..8]);
    let end = (0..=most.saturating_sub(tail.len())).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    format!("{}{tail}", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_gives_one_folder_below_its_parent() {
        for (name, folder) in [
            ("cat", "cat"),
            ("traffic light", "traffic light"),
            ("..", "class7"),
            ("", "class7"),
            (" . ", "class7"),
            ("a/b\\c:d", "a_b_c_d"),
            ("/etc/passwd", "_etc_passwd"),
            (".ssh", "_.ssh"),
            ("com1.x", "_com1.x"),
            ("line\nend", "line_end"),
            ("\u{732b}", "\u{732b}"),
        ] {
            assert_eq!(folder_name(name, 7), folder, "{name:?}");
        }
        let (long, other) = ("\u{732b}".repeat(200), "\u{732b}".repeat(201));
        assert!(folder_name(&long, 7).len() <= LONGEST);
        assert_ne!(folder_name(&long, 7), folder_name(&other, 7));
    }
}
