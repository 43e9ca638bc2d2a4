//! Texts for language models out of Debian packages: the same on every machine, known by their SHA-256.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use yolo_lat::sink::write_atomically;

use crate::log::say;

/// A text that can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Text {
    /// Jane Austen's six novels: package r-cran-janeaustenr.
    Austen,
    /// The King James Bible: packages bible-kjv-text and bible-kjv.
    KingJames,
}

/// Where the novels lie in their package, and the Bible.
const AUSTEN: &str = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb";

impl Text {
    pub(crate) const ALL: [Self; 2] = [Self::Austen, Self::KingJames];

    /// Name of its file.
    fn file(self) -> &'static str {
        match self {
            Self::Austen => "austen.txt",
            Self::KingJames => "king-james.txt",
        }
    }

    /// SHA-256 of its file.
    fn hash(self) -> &'static str {
        match self {
            Self::Austen => "8805ce141322371a2e6b7990245aa9b53312df124f1b0680ef0f6840c313fac9",
            Self::KingJames => "cd45f0c9cedab8e4439bd6486c8952c77cc8b0ecc5d1f6ae3513f2039f47229d",
        }
    }

    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Austen => &["r-cran-janeaustenr"],
            Self::KingJames => &["bible-kjv-text", "bible-kjv"],
        }
    }

    /// The text out of the unpacked packages: UTF-8, a form feed between two novels.
    fn extract(self, packages: &Path) -> anyhow::Result<String> {
        match self {
            Self::Austen => {
                let path = packages.join(AUSTEN);
                let bytes = std::fs::read(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
                let novels = novels(&bytes).with_context(|| format!("{}: not as expected", path.display()))?;
                Ok(novels.join("\u{c}"))
            }
            // One verse a line, its place before it.
            Self::KingJames => output(
                Command::new(packages.join("usr/bin/bible"))
                    .args(["-f", "-p"])
                    .arg(packages.join("usr/lib"))
                    .arg("gen1:1-rev22:21"),
            ),
        }
    }

    /// Reads the text from `folder`.
    ///
    /// # Errors
    /// It is not there, or another than that of its hash.
    pub(crate) fn read(self, folder: &Path) -> anyhow::Result<String> {
        let path = folder.join(self.file());
        let text = std::fs::read_to_string(&path);
        let text = text.with_context(|| format!("{}: cannot be read; make lm-corpus makes it", path.display()))?;
        self.check(&text).with_context(|| path.display().to_string())?;
        Ok(text)
    }

    fn check(self, text: &str) -> anyhow::Result<()> {
        let found = hash(text);
        if found != self.hash() {
            bail!(
                "not the text that was expected: SHA-256 is {found}, should be {}; make lm-corpus makes it",
                self.hash()
            );
        }
        Ok(())
    }
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn hash(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a command prints.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = match command.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("{name}: not on this machine (Debian has it)"),
        other => other.with_context(|| format!("{name}: cannot be run"))?,
    };
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{name}: wrote no UTF-8"))
}

/// The texts of an R package's data base. Each object is its length, four bytes with the highest first, and as many bytes as a zlib stream;
/// in it an array of strings is the type 16, their number, and of each four bytes of flags that end in 9, its length, its bytes.
fn novels(mut data: &[u8]) -> anyhow::Result<Vec<String>> {
    let mut novels = Vec::new();
    while !data.is_empty() {
        let (length, rest) = data.split_first_chunk::<4>().context("the last object is cut off")?;
        let length = u32::from_be_bytes(*length) as usize;
        let mut stream = flate2::read::ZlibDecoder::new(rest);
        let mut object = Vec::new();
        stream.by_ref().take(length as u64 + 1).read_to_end(&mut object)?;
        if object.len() != length {
            bail!("an object of {} bytes, {length} expected", object.len());
        }
        data = &rest[stream.total_in() as usize..];
        novels.push(lines(&object).context("no array of strings")??);
    }
    Ok(novels)
}

/// Strings of an object, a line each; `None` if there are none.
fn lines(object: &[u8]) -> Option<anyhow::Result<String>> {
    let start = object.windows(4).position(|bytes| bytes == [0, 0, 0, 16])? + 4;
    let (count, mut rest) = object[start..].split_first_chunk::<4>()?;
    let mut text = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let (head, after) = rest.split_first_chunk::<8>()?;
        let [_, _, _, 9, length @ ..] = *head else { return None };
        let (line, after) = after.split_at_checked(u32::from_be_bytes(length) as usize)?;
        text.extend_from_slice(line);
        text.push(b'\n');
        rest = after;
    }
    Some(String::from_utf8(text).context("no UTF-8"))
}

/// Makes the texts that are not in `folder` yet.
///
/// # Errors
/// The packages cannot be had, or hold other texts.
pub(crate) fn make(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    for text in Text::ALL {
        let path = folder.join(text.file());
        if !path.exists() {
            let unpacked = folder.join("packages");
            for package in text.packages() {
                unpack(package, &unpacked)?;
            }
            let content = text.extract(&unpacked)?;
            text.check(&content).with_context(|| format!("{} from {}", text.file(), text.packages().join(" and ")))?;
            write_atomically(&path, |file| std::io::Write::write_all(file, content.as_bytes()))?;
            std::fs::remove_dir_all(&unpacked)?;
        }
        let content = text.read(folder)?;
        say(&format!("{}: {} bytes, SHA-256 as expected", path.display(), content.len()));
    }
    Ok(())
}

/// Downloads a Debian package and unpacks it into `folder`.
fn unpack(package: &str, folder: &Path) -> anyhow::Result<()> {
    let downloads = folder.join("downloads");
    std::fs::create_dir_all(&downloads)?;
    output(Command::new("apt-get").args(["download", package]).current_dir(&downloads))
        .context("a text could not be downloaded (apt-get update first?)")?;
    let beginning = format!("{package}_");
    let mut files = std::fs::read_dir(&downloads)?.filter_map(|entry| Some(entry.ok()?.path()));
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&beginning));
    let file = files.find(named).with_context(|| format!("{package}: apt-get downloaded nothing"))?;
    output(Command::new("dpkg").arg("-x").arg(file).arg(folder)).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A data base with an object a text.
    fn data_base(texts: &[&[&str]]) -> Vec<u8> {
        let mut data = Vec::new();
        for lines in texts {
            let mut object = b"X\n\0\0\0\x03UTF-8\0\0\0\x10".to_vec();
            object.extend((lines.len() as u32).to_be_bytes());
            for line in *lines {
                object.extend([0, 4, 0, 9]);
                object.extend((line.len() as u32).to_be_bytes());
                object.extend(line.as_bytes());
            }
            data.extend((object.len() as u32).to_be_bytes());
            let mut stream = flate2::write::ZlibEncoder::new(&mut data, flate2::Compression::fast());
            stream.write_all(&object).unwrap();
            stream.finish().unwrap();
        }
        data
    }

    #[test]
    fn novels_come_out_of_the_package_of_r() {
        let data = data_base(&[&["EMMA", "", "Emma — handsome"], &["Persuasion"]]);
        assert_eq!(novels(&data).unwrap(), ["EMMA\n\nEmma — handsome\n", "Persuasion\n"]);
        for end in 1..data.len() - 1 {
            let whole = novels(&data[..end]);
            assert!(whole.is_err() || whole.unwrap().len() == 1, "cut after {end}");
        }
    }

    #[test]
    fn another_text_is_refused_by_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let missing = format!("{:#}", Text::Austen.read(folder.path()).unwrap_err());
        assert!(missing.contains("austen.txt: cannot be read; make lm-corpus makes it"), "{missing}");
        std::fs::write(folder.path().join("austen.txt"), "EMMA").unwrap();
        let other = format!("{:#}", Text::Austen.read(folder.path()).unwrap_err());
        assert!(other.contains("austen.txt: not the text that was expected: SHA-256 is f26bbaaf"), "{other}");
    }
}
