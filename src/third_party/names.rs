//! Names of classes: from a file's metadata, from the command line, or numbered.

use yolo_lat_core::engine::EngineError;
use yolo_lat_core::model::classes::COCO;

/// How many classes detectors trained on COCO have.
pub(super) const COCO_CLASSES: usize = COCO.len();
/// More classes than any detector has: a number beyond is no class.
const MOST: usize = 1 << 16;

/// The names for `count` classes: those `given`, numbered where they are missing; COCO's where there are none and it has
/// as many.
pub(super) fn names_for(count: usize, given: Option<Vec<Option<String>>>) -> Vec<String> {
    let mut names = match given {
        None if count == COCO_CLASSES => return coco(),
        given => given.unwrap_or_default(),
    };
    names.resize(count, None);
    let numbered = |(class, name): (usize, Option<String>)| name.unwrap_or_else(|| format!("class{class}"));
    names.into_iter().enumerate().map(numbered).collect()
}

fn coco() -> Vec<String> {
    COCO.map(str::to_owned).to_vec()
}

/// What `--names` takes: `coco`, a file with a name a line, or the names themselves with commas between them.
///
/// # Errors
/// [`EngineError::Onnx`] for a file that cannot be read, or holds no names.
pub fn parse_class_names(text: &str) -> Result<Vec<String>, EngineError> {
    if text == "coco" {
        return Ok(coco());
    }
    let fail = |reason: String| EngineError::Onnx { origin: format!("names {text}"), reason };
    let trimmed = |names: std::str::Split<'_, char>| -> Vec<String> {
        names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
    };
    let is_path =
        text.contains(['/', '\\']) || [".txt", ".names", ".yaml", ".yml"].iter().any(|end| text.ends_with(end));
    let names = if std::path::Path::new(text).is_file() || (is_path && !text.contains(',')) {
        let lines = std::fs::read_to_string(text).map_err(|error| fail(format!("cannot be read: {error}")))?;
        trimmed(lines.trim_start_matches('\u{feff}').split('\n'))
    } else {
        trimmed(text.split(','))
    };
    if names.is_empty() { Err(fail("no names".into())) } else { Ok(names) }
}

/// Names from a file's metadata, by class: a list or a map with numbers as keys, as Python or JSON writes it
/// (`{0: 'person', 1: 'bicycle'}`, `["bolt", "nut"]`). The number decides, not the place. `None` for anything else.
pub(super) fn parse_names(text: &str) -> Option<Vec<Option<String>>> {
    let text = text.trim();
    let (is_map, inner) = match (text.chars().next()?, text.chars().last()?) {
        ('{', '}') => (true, &text[1..text.len() - 1]),
        ('[', ']') | ('(', ')') if text.len() > 1 => (false, &text[1..text.len() - 1]),
        _ => return None,
    };
    let mut names: Vec<Option<String>> = Vec::new();
    let mut rest = inner.trim_start();
    while !rest.is_empty() {
        let mut class = names.len();
        if is_map {
            let (key, after) = literal(rest, &[':'])?;
            class = key.trim().parse().ok().filter(|&class: &usize| class < MOST)?;
            rest = after.strip_prefix(':')?.trim_start();
        }
        let (name, after) = literal(rest, &[','])?;
        if class >= names.len() {
            names.resize(class + 1, None);
        }
        names[class] = Some(name);
        // A comma, also after the last.
        rest = match after.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if after.is_empty() => after,
            None => return None,
        };
    }
    (!names.is_empty()).then_some(names)
}

/// A quoted text, or a bare one up to one of `ends`; and what follows.
fn literal<'a>(text: &'a str, ends: &[char]) -> Option<(String, &'a str)> {
    let Some(quote @ ('\'' | '"')) = text.chars().next() else {
        let end = text.find(ends).unwrap_or(text.len());
        let (bare, rest) = text.split_at(end);
        return (!bare.trim().is_empty()).then(|| (bare.trim().to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = text[1..].chars();
    loop {
        match characters.next()? {
            '\\' => match characters.next()? {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                escape @ ('x' | 'u' | 'U') => {
                    let digits = match escape {
                        'x' => 2,
                        'u' => 4,
                        _ => 8,
                    };
                    let number: String = characters.by_ref().take(digits).collect();
                    let mut code = u32::from_str_radix(&number, 16).ok()?;
                    // JSON writes what is beyond 16 bits in two parts.
                    if (0xD800..0xDC00).contains(&code) && digits == 4 {
                        characters.next().zip(characters.next()).filter(|pair| *pair == ('\\', 'u'))?;
                        let low = u32::from_str_radix(&characters.by_ref().take(4).collect::<String>(), 16).ok()?;
                        code =
                            0x10000 + ((code - 0xD800) << 10) + low.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
                    }
                    value.push(char::from_u32(code)?);
                }
                other => value.push(other),
            },
            character if character == quote => return Some((value, characters.as_str().trim_start())),
            character => value.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Option<Vec<String>> {
        parse_names(text).map(|names| names_for(names.len(), Some(names)))
    }

    #[test]
    fn names_are_read_as_python_and_json_write_them() {
        let is = |text: &str, expected: &[&str]| {
            let expected: Vec<String> = expected.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(names(text), Some(expected));
        };
        is("{0: 'cat', 1: \"king's\", 2: 'it\\'s'}", &["cat", "king's", "it's"]);
        is("['bolt', 'nut', ]", &["bolt", "nut"]);
        is("[\"a, b\",\"c: d\"]", &["a, b", "c: d"]);
        is("{\"1\": \"nut\", \"0\": \"bolt\"}", &["bolt", "nut"]);
        is("{2: 'ring', 0: bolt}", &["bolt", "class1", "ring"]);
        is("('\\u732b', '\\x41\\\\')", &["猫", "A\\"]);
        is("[\"bolt\", \"\\ud83d\\ude00\"]", &["bolt", "😀"]);
    }

    #[test]
    fn what_is_no_list_of_names_is_none() {
        for text in
            ["", "[", "{}", "[]", "{0: 'cat", "{x: 'cat'}", "{99999999: 'cat'}", "['a' 'b']", "80", "{0: 'a\\u12'}"]
        {
            assert_eq!(names(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_numbered_where_there_are_none() {
        assert_eq!(names_for(80, None)[79], "toothbrush");
        assert_eq!(names_for(3, None), ["class0", "class1", "class2"]);
        assert_eq!(names_for(2, Some(vec![Some("bolt".into())])), ["bolt", "class1"]);
        assert_eq!(parse_class_names(" bolt, nut").unwrap(), ["bolt", "nut"]);
        assert_eq!(parse_class_names("coco").unwrap().len(), COCO_CLASSES);
        assert!(parse_class_names(",").is_err());
        assert!(parse_class_names("/nowhere/names.txt").unwrap_err().to_string().contains("cannot be read"));
    }
}
