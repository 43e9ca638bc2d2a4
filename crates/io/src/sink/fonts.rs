//! Which font a text is drawn with: the program's own, and for letters that it lacks one of the system's.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, MutexGuard, Once, PoisonError};

use ab_glyph::{Font, FontRef};
use plotters::style::{FontStyle, register_font};

/// DejaVu Sans.
pub static FONT: &[u8] = include_bytes!("../../../../assets/DejaVuSans.ttf");
/// The family under which plotters knows it.
pub(super) const OWN: &str = "sans-serif";

/// Makes the program's own font known as `sans-serif`, so that text looks the same on every machine.
///
/// Texts have even sizes: plotters puts the tops of letters at half the size, cut to a whole pixel, and of an odd size
/// the points of decimals float.
pub(crate) fn use_own_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The file is part of the program; were it damaged, boxes would appear without text.
        let _ = register_font(OWN, FontStyle::Normal, FONT);
    });
}

/// Fonts of the system that were needed once, and letters that none has.
#[derive(Default)]
struct Fonts {
    system: Option<fontdb::Database>,
    loaded: Vec<Loaded>,
    missing: HashSet<char>,
}

/// A font of the system.
struct Loaded {
    /// Under which plotters knows it.
    family: String,
    bytes: &'static [u8],
    font: FontRef<'static>,
}

fn fonts() -> MutexGuard<'static, Fonts> {
    static FONTS: LazyLock<Mutex<Fonts>> = LazyLock::new(Mutex::default);
    FONTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Name and file of a font of the system that has a letter.
pub fn system_font(letter: char) -> Option<(String, &'static [u8])> {
    fonts().having(letter).map(|loaded| (loaded.family.clone(), loaded.bytes))
}

/// A text in parts, each with the family that has its letters, in the order in which they stand on paper; `None` if no
/// font has one of them, which is said once. Letters are not joined or stacked, as some scripts want.
pub(super) fn parts(text: &str) -> Option<Vec<(String, String)>> {
    use_own_font();
    let own = FontRef::try_from_slice(FONT).ok()?;
    let has = |font: &FontRef, letter: char| letter.is_whitespace() || font.glyph_id(letter).0 != 0;
    if !text.chars().any(|letter| is_right_to_left(letter) || !has(&own, letter)) {
        return Some(vec![(OWN.to_owned(), text.to_owned())]);
    }
    let mut fonts = fonts();
    let mut parts: Vec<(String, String)> = Vec::new();
    for letter in visual_order(text) {
        let family: &str = if has(&own, letter) { OWN } else { &fonts.having(letter)?.family };
        match parts.last_mut() {
            Some((last, part)) if last == family => part.push(letter),
            _ => parts.push((family.to_owned(), letter.to_string())),
        }
    }
    Some(parts)
}

impl Fonts {
    fn having(&mut self, letter: char) -> Option<&Loaded> {
        if self.missing.contains(&letter) {
            return None;
        }
        if !self.loaded.iter().any(|loaded| loaded.font.glyph_id(letter).0 != 0) {
            match self.load(letter) {
                Some(loaded) => self.loaded.push(loaded),
                None => {
                    if self.missing.is_empty() {
                        let place = if cfg!(target_os = "linux") {
                            " (apt-get install fonts-noto-core fonts-noto-cjk)"
                        } else {
                            ""
                        };
                        log::warn!(
                            "no font of this system has the letter {letter:?}: install one{place}; until then, names of \
                             classes with such letters are drawn as numbers"
                        );
                    }
                    self.missing.insert(letter);
                }
            }
        }
        self.loaded.iter().find(|loaded| loaded.font.glyph_id(letter).0 != 0)
    }

    /// Looks for a font that has a letter: upright, of usual weight, without serifs, the first by its name.
    fn load(&mut self, letter: char) -> Option<Loaded> {
        let system = self.system.get_or_insert_with(|| {
            let mut system = fontdb::Database::new();
            system.load_system_fonts();
            system
        });
        let family = |face: &fontdb::FaceInfo| face.families.first().map(|(name, _)| name.clone()).unwrap_or_default();
        let rank = |face: &&fontdb::FaceInfo| {
            let name = family(face);
            (face.style != fontdb::Style::Normal, face.weight.0.abs_diff(400), !name.contains("Sans"), name)
        };
        // Of a collection, plotters knows the first.
        let mut faces: Vec<_> = system.faces().filter(|face| face.index == 0).collect();
        faces.sort_by_cached_key(rank);
        faces.into_iter().find_map(|face| {
            let bytes = system.with_face_data(face.id, |bytes, _| {
                let has = FontRef::try_from_slice(bytes).is_ok_and(|font| font.glyph_id(letter).0 != 0);
                has.then(|| bytes.to_vec())
            });
            // Fonts of plotters live as long as the program; few are needed.
            let bytes: &'static [u8] = Vec::leak(bytes??);
            let family = format!("{} {}", family(face), face.id);
            register_font(&family, FontStyle::Normal, bytes).ok()?;
            Some(Loaded { family, bytes, font: FontRef::try_from_slice(bytes).ok()? })
        })
    }
}

/// Hebrew, Arabic and their neighbours.
fn is_right_to_left(letter: char) -> bool {
    matches!(letter, '\u{590}'..='\u{8FF}' | '\u{FB1D}'..='\u{FDFF}' | '\u{FE70}'..='\u{FEFC}')
}

/// Letters from left to right as they stand on paper: runs of letters that are written from the right are turned, with the
/// blanks between them.
fn visual_order(text: &str) -> Vec<char> {
    let mut letters: Vec<char> = text.chars().collect();
    let mut at = 0;
    while let Some(begin) = letters[at..].iter().position(|&letter| is_right_to_left(letter)).map(|found| at + found) {
        let inside = |&letter: &char| is_right_to_left(letter) || letter.is_whitespace();
        let end = begin + letters[begin..].iter().take_while(|letter| inside(letter)).count();
        let end = begin + letters[begin..end].iter().rposition(|&letter| is_right_to_left(letter)).unwrap_or(0) + 1;
        letters[begin..end].reverse();
        at = end;
    }
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_own_font_has_is_drawn_with_it() {
        for text in ["cat 0.93", "\u{e9}l\u{e9}phant", "\u{43a}\u{43e}\u{448}\u{43a}\u{430}", ""] {
            assert_eq!(parts(text), Some(vec![(OWN.to_owned(), text.to_owned())]));
        }
    }

    #[test]
    fn what_is_written_from_the_right_is_turned_and_figures_are_not() {
        let order = |text: &str| visual_order(text).into_iter().collect::<String>();
        assert_eq!(order("\u{5d0}\u{5d1} \u{5d2} 0.93"), "\u{5d2} \u{5d1}\u{5d0} 0.93");
        assert_eq!(order("cat 0.93"), "cat 0.93");
    }

    #[test]
    fn a_letter_that_no_font_has_gives_nothing() {
        // Not assigned and never will be.
        assert_eq!(parts("\u{10FFFF}"), None);
    }
}
