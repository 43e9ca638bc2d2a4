//! `yolo-lat eval --tracks`: how well objects were followed.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Map, Value, json};
use yolo_lat::eval::{TrackScores, measure_tracks};

use super::percent;

/// Measures the tracks of a file or folder against the truth: a JSON object or a table.
pub(super) fn run(truth: &Path, tracks: &Path, as_json: bool) -> anyhow::Result<String> {
    let scores = measure_tracks(truth, tracks)?;
    let mut together = TrackScores::default();
    scores.iter().for_each(|(_, scores)| together += scores);
    if as_json {
        let sequences: Map<String, Value> =
            scores.iter().map(|(name, scores)| (name.clone(), values(scores))).collect();
        return Ok(format!("{}\n", json!({ "together": values(&together), "sequences": sequences })));
    }
    let widest = scores.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(8);
    let mut table = format!("{:<widest$}", "sequence");
    for name in ["HOTA", "DetA", "AssA", "MOTA", "MOTP", "IDF1"] {
        // Writing to a String cannot fail.
        let _ = write!(table, " {name:>6}");
    }
    let _ =
        writeln!(table, " {:>8} {:>12} {:>8} {:>8} {:>8}", "switches", "false alarms", "missed", "objects", "tracks");
    let rows = scores.iter().map(|(name, scores)| (name.as_str(), scores));
    for (name, scores) in rows.chain((scores.len() > 1).then_some(("together", &together))) {
        let _ = writeln!(table, "{name:<widest$}{}", row(scores));
    }
    Ok(table)
}

fn values(TrackScores { objects, tracks, clear, identity, hota }: &TrackScores) -> Value {
    json!({
        "hota": percent(hota.hota()), "deta": percent(hota.detection()), "assa": percent(hota.association()),
        "loca": percent(hota.location()), "mota": percent(clear.mota()), "motp": percent(clear.motp()),
        "idf1": percent(identity.idf1()), "idp": percent(identity.precision()), "idr": percent(identity.recall()),
        "switches": clear.switches, "false_alarms": clear.false_alarms, "missed": clear.missed, "objects": objects, "tracks": tracks,
    })
}

fn row(TrackScores { objects, tracks, clear, identity, hota }: &TrackScores) -> String {
    let shares = [hota.hota(), hota.detection(), hota.association(), clear.mota(), clear.motp(), identity.idf1()];
    let shares: String = shares.iter().map(|share| format!(" {:>6.1}", 100.0 * share)).collect();
    format!("{shares} {:>8} {:>12} {:>8} {objects:>8} {tracks:>8}", clear.switches, clear.false_alarms, clear.missed)
}
