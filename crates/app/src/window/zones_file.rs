//! The TOML file that keeps zones and lines: tables `zone` and `line`, each with a list of numbers a name. What else is in the file
//! (options of `--config`, comments) stays as it is.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use toml_edit::{Array, DocumentMut, Item, Table, Value};

use yolo_lat_io::sink::{SinkError, write_atomically};
use yolo_lat_io::zones::{Line, Point, ShapeError, Zone};

/// What is kept.
pub(super) type Shapes = (Vec<Zone>, Vec<Line>);

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ZonesFileError {
    #[error("{}: cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {message}", path.display())]
    Toml { path: PathBuf, message: String },
    #[error("{}: {table} is no table of names and numbers", path.display())]
    NoTable { path: PathBuf, table: &'static str },
    #[error("{}: {source}", path.display())]
    Shape { path: PathBuf, source: ShapeError },
    #[error(transparent)]
    Write(#[from] SinkError),
}

fn open(path: &Path) -> Result<DocumentMut, ZonesFileError> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        text => text.map_err(|source| ZonesFileError::Read { path: path.to_owned(), source })?,
    };
    text.parse().map_err(|error: toml_edit::TomlError| {
        let message = error.message().replace('\n', " ");
        ZonesFileError::Toml { path: path.to_owned(), message }
    })
}

/// Zones and lines of a file; none of one that is not there.
pub(super) fn load(path: &Path) -> Result<Shapes, ZonesFileError> {
    let document = open(path)?;
    let all = |table: &'static str| -> Result<Vec<String>, ZonesFileError> {
        let Some(item) = document.get(table) else { return Ok(Vec::new()) };
        let entries = item.as_table_like().ok_or(ZonesFileError::NoTable { path: path.to_owned(), table })?;
        // As the command line has them.
        Ok(entries.iter().map(|(name, points)| format!("{name}={}", numbers(points))).collect())
    };
    let fail = |source| ZonesFileError::Shape { path: path.to_owned(), source };
    let zones = all("zone")?.iter().map(|text| text.parse().map_err(fail)).collect::<Result<_, _>>()?;
    let lines = all("line")?.iter().map(|text| text.parse().map_err(fail)).collect::<Result<_, _>>()?;
    Ok((zones, lines))
}

fn numbers(item: &Item) -> String {
    let text = |value: &Value| match value {
        Value::Float(number) => number.value().to_string(),
        Value::Integer(number) => number.value().to_string(),
        other => other.to_string(),
    };
    let values = item.as_array().map(|values| values.iter().map(text).collect::<Vec<_>>().join(","));
    values.unwrap_or_else(|| item.to_string())
}

/// Puts a zone or line into the `table` of a file, or takes it away where there are no `points`.
pub(super) fn change(
    path: &Path,
    table: &'static str,
    name: &str,
    points: Option<&[Point]>,
) -> Result<(), ZonesFileError> {
    let mut document = open(path)?;
    let entries = document.entry(table).or_insert(Item::Table(Table::new()));
    let entries = entries.as_table_like_mut().ok_or(ZonesFileError::NoTable { path: path.to_owned(), table })?;
    match points {
        // A tenth of a thousandth is less than a pixel.
        Some(points) => {
            let shares = points.iter().flatten().map(|share| (f64::from(*share) * 1e4).round() / 1e4);
            entries.insert(name, toml_edit::value(shares.collect::<Array>()));
        }
        None => drop(entries.remove(name)),
    }
    if entries.is_empty() {
        document.remove(table);
    }
    Ok(write_atomically(path, |file| std::io::Write::write_all(file, document.to_string().as_bytes()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &str = "# My house\nconf = 0.3 # as tried\n\n[zone]\nyard = [0, 0.5, 1, 0.5, 1, 1] # the cat's\n";

    #[test]
    fn what_is_drawn_comes_back_and_the_rest_of_the_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new folder/house.toml");
        assert_eq!(load(&path).unwrap(), (vec![], vec![]));
        change(&path, "line", "gate", Some(&[[0.1, 0.5], [0.9, 0.5]])).unwrap();
        assert_eq!(load(&path).unwrap(), (vec![], vec!["gate=0.1,0.5,0.9,0.5".parse().unwrap()]));
        std::fs::write(&path, OPTIONS).unwrap();
        let door: Zone = "front door=0.12345,0.2,0.5,0.2,0.5,0.9".parse().unwrap();
        change(&path, "zone", door.name(), Some(door.points())).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{OPTIONS}\"front door\" = [0.1235, 0.2, 0.5, 0.2, 0.5, 0.9]\n"));
        let yard: Zone = "yard=0,0.5,1,0.5,1,1".parse().unwrap();
        let door: Zone = "front door=0.1235,0.2,0.5,0.2,0.5,0.9".parse().unwrap();
        assert_eq!(load(&path).unwrap().0, [yard, door]);
        change(&path, "zone", "front door", None).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), OPTIONS);
        change(&path, "zone", "yard", None).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "# My house\nconf = 0.3 # as tried\n");
    }

    #[test]
    fn what_is_wrong_is_said_and_the_file_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("house.toml");
        for (text, wrong) in [
            ("zone = 3", "house.toml: zone is no table of names and numbers"),
            ("zone = ", "house.toml: "),
            ("zone.door = [0, 0, 1, 1]", "house.toml: door: a zone has at least 3 points, found 2"),
            ("line.gate = 'here'", "house.toml: gate: "),
        ] {
            std::fs::write(&path, text).unwrap();
            let said = load(&path).unwrap_err().to_string();
            assert!(said.contains(wrong) && !said.contains('\n'), "{text}: {said}");
        }
        std::fs::write(&path, "zone = 3").unwrap();
        assert!(change(&path, "zone", "door", Some(&[[0.0, 0.0]])).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "zone = 3");
    }
}
