//! What classes are called: COCO's names, what else people and files say for them, and how a name finds its class.
//!
//! Everything that reads a name asks here, so that `--classes`, data sets, result files and the trainer understand the same
//! words: [`find_class`] for one name that a person wrote, [`class_map`] for two lists of names, [`nearest_class`] for 'did you
//! mean'.

use std::sync::LazyLock;

/// The 80 classes of COCO in the order of its detectors (index 0 is `person`); COCO's own category numbers have gaps.
pub const COCO: [&str; 80] = [
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "backpack",
    "umbrella",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "laptop",
    "mouse",
    "remote",
    "keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
];

/// Other words for the same thing: PASCAL VOC's, Open Images', everyday ones. Plurals and other spellings (case, blanks, `_`,
/// `-`) need no entry unless they are irregular.
const ALIASES: [(&str, &[&str]); 32] = [
    ("person", &["people", "human", "human being"]),
    ("bicycle", &["bike", "cycle", "push bike"]),
    ("car", &["automobile", "motor car"]),
    ("motorcycle", &["motorbike", "motor bike"]),
    ("airplane", &["aeroplane", "plane", "aircraft"]),
    ("truck", &["lorry"]),
    ("traffic light", &["traffic signal", "stop light"]),
    ("fire hydrant", &["hydrant"]),
    ("cow", &["cattle"]),
    ("backpack", &["rucksack", "knapsack"]),
    ("tie", &["necktie"]),
    ("frisbee", &["flying disc"]),
    ("skis", &["ski"]),
    ("sports ball", &["ball"]),
    ("baseball glove", &["baseball mitt"]),
    ("tennis racket", &["tennis racquet", "racket", "racquet"]),
    ("knife", &["knives"]),
    ("donut", &["doughnut"]),
    ("couch", &["sofa", "settee"]),
    ("potted plant", &["house plant", "pot plant"]),
    ("dining table", &["table", "kitchen & dining room table"]),
    ("tv", &["tv monitor", "television", "television set", "tv set"]),
    ("laptop", &["laptop computer", "notebook computer"]),
    ("mouse", &["mice", "computer mouse"]),
    ("remote", &["remote control"]),
    ("keyboard", &["computer keyboard"]),
    ("cell phone", &["mobile phone", "mobile", "smartphone", "phone", "cellular telephone"]),
    ("microwave", &["microwave oven"]),
    ("refrigerator", &["fridge"]),
    ("scissors", &["scissor"]),
    ("teddy bear", &["teddy"]),
    ("hair drier", &["hair dryer"]),
];

/// Words for something narrower or near: not the same class, but what is meant by one who asks for it.
const RELATED: [(&str, &[&str]); 25] = [
    (
        "person",
        &["man", "men", "woman", "women", "child", "children", "boy", "girl", "kid", "baby", "pedestrian", "face"],
    ),
    ("bicycle", &["cyclist"]),
    ("car", &["taxi", "cab", "suv", "vehicle", "van"]),
    ("motorcycle", &["scooter", "moped", "motorcyclist"]),
    ("airplane", &["jet", "helicopter", "airliner"]),
    ("train", &["tram", "locomotive", "railway"]),
    ("truck", &["pickup"]),
    ("boat", &["ship", "canoe", "ferry", "yacht", "vessel"]),
    ("bird", &["pigeon", "duck", "chicken", "gull"]),
    ("cat", &["kitten", "kitty"]),
    ("dog", &["puppy", "hound"]),
    ("horse", &["pony", "foal"]),
    ("sheep", &["lamb", "goat"]),
    ("cow", &["bull", "calf", "ox"]),
    ("handbag", &["purse", "bag"]),
    ("suitcase", &["luggage"]),
    ("bottle", &["flask"]),
    ("cup", &["mug", "beaker"]),
    ("wine glass", &["glass", "goblet"]),
    ("couch", &["divan", "loveseat"]),
    ("potted plant", &["plant", "flower", "flowerpot"]),
    ("dining table", &["desk"]),
    ("tv", &["monitor", "screen", "display"]),
    ("laptop", &["computer", "notebook"]),
    ("oven", &["stove", "cooker"]),
];

/// A name that is none of a model's classes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model knows no {name:?}{} ({})", did_you_mean(suggestion.as_deref()), enumeration(known))]
pub struct UnknownClass {
    /// As it was given.
    pub name: String,
    /// The class that may have been meant.
    pub suggestion: Option<String>,
    /// All classes of the model.
    pub known: Vec<String>,
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

/// All names where that is still a line, else where they stand.
fn enumeration(known: &[String]) -> String {
    match known.len() {
        0 => "it has no classes".into(),
        1..=24 => format!("all: {}", known.join(", ")),
        count => format!("`yolo-lat classes` lists its {count}"),
    }
}

/// The index of the class that `name` means among `classes`: the name itself, its number, another spelling (`Cell-Phone`,
/// `cellphone`, `potted_plants`) or another word for it (`sofa` for `couch`, `people` for `person`). The nearest reading wins:
/// a model with both `sofa` and `couch` keeps them apart.
///
/// # Errors
/// [`UnknownClass`], with what may have been meant.
pub fn find_class(name: &str, classes: &[String]) -> Result<usize, UnknownClass> {
    let exact = classes.iter().position(|class| class.eq_ignore_ascii_case(name.trim()));
    let number = || name.trim().parse::<usize>().ok().filter(|&number| number < classes.len());
    exact.or_else(number).or_else(|| find_by_name(name, classes)).ok_or_else(|| UnknownClass {
        name: name.to_owned(),
        suggestion: nearest_class(name, classes).map(str::to_owned),
        known: classes.to_vec(),
    })
}

/// For each of `names` its index among `others`, or `None`; as [`find_class`], but names alone count: a number in one list says
/// nothing about another.
pub fn class_map(names: &[String], others: &[String]) -> Vec<Option<usize>> {
    names.iter().map(|name| find_by_name(name, others)).collect()
}

/// The class that one who wrote `name` may have meant: what a related word stands for (`mug`, `puppy`), else the most similar
/// name or alias; `None` where nothing is near.
pub fn nearest_class<'a>(name: &str, classes: &'a [String]) -> Option<&'a str> {
    let wanted = spelling(name);
    let related = RELATED.iter().find(|(_, words)| words.iter().any(|word| same_word(&wanted, &spelling(word))));
    if let Some(index) = related.and_then(|(class, _)| find_by_name(class, classes)) {
        return Some(&classes[index]);
    }
    let similarity = |class: &String| {
        let words = std::iter::once(class.as_str()).chain(aliases(class));
        words.map(|word| strsim::jaro_winkler(&spelling(word), &wanted)).fold(0.0, f64::max)
    };
    let nearest = classes.iter().map(|class| (similarity(class), class)).max_by(|(a, _), (b, _)| a.total_cmp(b));
    nearest.filter(|(similarity, _)| *similarity > 0.8).map(|(_, class)| class.as_str())
}

/// Other words for a class, COCO's name first where it has another: `["couch", "settee"]` for `sofa`; without plurals and
/// spellings, which need no entry.
pub fn aliases(class: &str) -> Vec<&'static str> {
    let Some(meant) = meaning(class).map(|index| COCO[index]) else { return Vec::new() };
    let words = ALIASES.iter().find(|(name, _)| *name == meant).map_or(&[][..], |(_, words)| words);
    let all = std::iter::once(meant).chain(words.iter().copied());
    all.filter(|word| spelling(word) != spelling(class)).collect()
}

fn find_by_name(name: &str, classes: &[String]) -> Option<usize> {
    let wanted = spelling(name);
    if wanted.is_empty() {
        return None;
    }
    let find = |is_it: &dyn Fn(&str) -> bool| classes.iter().position(|class| is_it(class));
    find(&|class| spelling(class) == wanted)
        .or_else(|| find(&|class| same_word(&spelling(class), &wanted)))
        .or_else(|| meaning(name).and_then(|meant| find(&|class| meaning(class) == Some(meant))))
}

/// Spellings of all names and aliases, each with its index among [`COCO`].
static WORDS: LazyLock<Vec<(String, usize)>> = LazyLock::new(|| {
    let class_of = |(class, words): &(&'static str, &'static [&'static str])| {
        let index = COCO.iter().position(|name| name == class);
        words.iter().filter_map(move |word| Some((spelling(word), index?))).collect::<Vec<_>>()
    };
    let names = COCO.iter().enumerate().map(|(index, name)| (spelling(name), index));
    names.chain(ALIASES.iter().flat_map(class_of)).collect()
});

/// Index among [`COCO`] of what a name stands for.
fn meaning(name: &str) -> Option<usize> {
    let wanted = spelling(name);
    WORDS.iter().find(|(word, _)| same_word(word, &wanted)).map(|(_, index)| *index)
}

/// A name without what spellings differ in: case, blanks, `_`, `-` and other marks.
fn spelling(name: &str) -> String {
    let marks = |letter: &char| !letter.is_whitespace() && !letter.is_ascii_punctuation();
    name.chars().filter(marks).flat_map(char::to_lowercase).collect()
}

/// Whether two spellings are the same or singular and plural.
fn same_word(a: &str, b: &str) -> bool {
    let is_plural = |plural: &str, one: &str| {
        let sibilant = ["s", "x", "z", "ch", "sh", "o"].iter().any(|end| one.ends_with(end));
        let changed = |end: &str, by: &str| one.strip_suffix(end).is_some_and(|stem| plural == format!("{stem}{by}"));
        match plural.strip_prefix(one) {
            Some("s") => !one.is_empty(),
            Some("es") => sibilant,
            _ => changed("y", "ies"),
        }
    };
    a == b || is_plural(a, b) || is_plural(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coco() -> Vec<String> {
        COCO.map(str::to_owned).to_vec()
    }

    fn voc() -> Vec<String> {
        let names = "aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,diningtable,dog,horse,motorbike,person,\
                     pottedplant,sheep,sofa,train,tvmonitor";
        names.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn every_name_of_voc_means_one_of_coco_and_back() {
        let forth = class_map(&voc(), &coco());
        let back = class_map(&coco(), &voc());
        let expected = [4, 1, 14, 8, 39, 5, 2, 15, 56, 19, 60, 16, 17, 3, 0, 58, 18, 57, 6, 62];
        assert_eq!(forth, expected.map(Some));
        assert_eq!(back.iter().flatten().count(), 20);
        for (voc, coco) in forth.into_iter().enumerate() {
            assert_eq!(back[coco.unwrap()], Some(voc));
        }
    }

    #[test]
    fn words_spellings_plurals_and_numbers_find_their_class() {
        let (coco, voc) = (coco(), voc());
        let cases = [
            ("tvmonitor", "tv"),
            ("TV", "tv"),
            ("Television", "tv"),
            ("tv monitor", "tv"),
            ("sofa", "couch"),
            ("sofas", "couch"),
            ("Aeroplane", "airplane"),
            ("motorbikes", "motorcycle"),
            ("mobile phone", "cell phone"),
            ("mobile_phone", "cell phone"),
            ("Cell-Phone", "cell phone"),
            ("cellphones", "cell phone"),
            ("people", "person"),
            ("Human", "person"),
            ("persons", "person"),
            ("bike", "bicycle"),
            ("dining_table", "dining table"),
            ("diningtable", "dining table"),
            ("potted plants", "potted plant"),
            ("buses", "bus"),
            ("benches", "bench"),
            ("knives", "knife"),
            ("mice", "mouse"),
            ("wine glasses", "wine glass"),
            ("Kitchen & dining room table", "dining table"),
            ("toothbrushes", "toothbrush"),
            ("ski", "skis"),
            ("Houseplant", "potted plant"),
            ("62", "tv"),
            (" 0 ", "person"),
            ("doughnuts", "donut"),
            ("sheep", "sheep"),
            ("teddies", "teddy bear"),
        ];
        for (name, class) in cases {
            assert_eq!(find_class(name, &coco).map(|index| COCO[index]), Ok(class), "{name}");
        }
        for (name, class) in
            [("couch", "sofa"), ("tv", "tvmonitor"), ("airplanes", "aeroplane"), ("potted plant", "pottedplant")]
        {
            assert_eq!(find_class(name, &voc).map(|index| voc[index].as_str()), Ok(class), "{name}");
        }
    }

    #[test]
    fn the_nearest_reading_wins() {
        let own: Vec<String> = ["couch", "sofa", "Helmet", "7", "glass", "glasses"].map(str::to_owned).to_vec();
        let find = |name| find_class(name, &own).ok();
        assert_eq!((find("sofa"), find("couch"), find("settee")), (Some(1), Some(0), Some(0)));
        // A class that is called by a number is that, not the class of this number.
        assert_eq!((find("7"), find("1"), find("helmets")), (Some(3), Some(1), Some(2)));
        assert_eq!((find("glass"), find("glasses")), (Some(4), Some(5)));
        // Numbers of a list of names mean nothing in another list.
        assert_eq!(class_map(&["1".into(), "couches".into()], &own), [None, Some(0)]);
        for name in ["", "  ", "--", "s", "80", "kit", "ca"] {
            assert!(find_class(name, &coco()).is_err(), "{name}");
        }
        assert!(find_class("x", &[]).is_err());
    }

    #[test]
    fn what_was_meant_is_proposed() {
        let cases = [
            ("persn", "person"),
            ("man", "person"),
            ("women", "person"),
            ("puppy", "dog"),
            ("kittens", "cat"),
            ("mug", "cup"),
            ("tellevision", "tv"),
            ("moblie phone", "cell phone"),
            ("elefant", "elephant"),
            ("monitor", "tv"),
        ];
        for (name, class) in cases {
            assert_eq!(nearest_class(name, &coco()), Some(class), "{name}");
        }
        assert_eq!(nearest_class("mug", &voc()), None);
        assert_eq!(nearest_class("qqqq", &coco()), None);
        assert_eq!((aliases("sofa"), aliases("couch")), (vec!["couch", "settee"], vec!["sofa", "settee"]));
        assert!(aliases("helmet").is_empty());
        let error = find_class("persn", &voc()).unwrap_err().to_string();
        assert!(
            error.starts_with("the model knows no \"persn\"; did you mean \"person\"? (all: aeroplane, "),
            "{error}"
        );
    }

    #[test]
    fn no_word_stands_for_two_classes() {
        let mut seen: Vec<(String, &str)> = COCO.map(|class| (spelling(class), class)).to_vec();
        for (class, words) in ALIASES.iter().chain(&RELATED) {
            assert!(COCO.contains(class), "{class}");
            for word in *words {
                let other = seen.iter().find(|(seen, other)| same_word(seen, &spelling(word)) && other != class);
                assert_eq!(other, None, "{word} of {class}");
                seen.push((spelling(word), class));
            }
        }
    }
}
