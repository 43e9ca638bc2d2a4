//! What is waited for, and when it is there: pure, with times as they are told.

use std::time::Duration;

use crate::sink::NamedDetection;

/// A thing that is gone for less than this has not left.
pub const GRACE: Duration = Duration::from_secs(2);
/// Nor has one that was in the last image of a source which gives none for less than this.
pub const STALL: Duration = Duration::from_secs(10);

/// A class, and where it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Any name of the class, or its number.
    pub class: String,
    /// A zone by its name; without one, the whole image.
    pub zone: Option<String>,
}

impl std::str::FromStr for Rule {
    type Err = String;

    /// `CLASS` or `CLASS:ZONE`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (class, zone) = match text.split_once(':') {
            Some((class, zone)) => (class, Some(zone.trim().to_owned())),
            None => (text, None),
        };
        if class.trim().is_empty() || zone.as_ref().is_some_and(String::is_empty) {
            return Err(format!("{text:?}: expected a class, or CLASS:ZONE"));
        }
        Ok(Self { class: class.trim().to_owned(), zone })
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.class)?;
        self.zone.as_ref().map_or(Ok(()), |zone| write!(formatter, ":{zone}"))
    }
}

impl Rule {
    /// Whether a detection of class `class` is what the rule waits for.
    pub(super) fn matches(&self, class: usize, detection: &NamedDetection) -> bool {
        detection.class == class && self.zone.as_ref().is_none_or(|zone| detection.zones.contains(zone))
    }

    /// Letters and digits that name the rule in topics and files.
    pub(super) fn slug(&self) -> String {
        let kept = |letter: char| if letter.is_alphanumeric() { letter } else { '_' };
        self.to_string().chars().map(kept).collect()
    }
}

/// A thing that was seen where the rule wants it. Without tracks, the class as a whole is one thing.
#[derive(Clone, Copy, Debug)]
struct Presence {
    track: Option<u64>,
    since: Duration,
    seen: Duration,
}

/// Whether a rule is met, by what was seen when.
///
/// An event begins where one thing was first seen and is told once that thing has been there for the time `hold`. It goes on while
/// anything of the rule is seen, and ends where something was last seen, told when nothing has been seen for [`GRACE`] in the images that
/// came, or for [`STALL`] because none came.
#[derive(Debug)]
pub(super) struct Watch {
    hold: Duration,
    presences: Vec<Presence>,
    /// When the event was seen last.
    event: Option<Duration>,
}

impl Watch {
    pub(super) fn new(hold: Duration) -> Self {
        Self { hold, presences: Vec::new(), event: None }
    }

    /// Forgets who has left by `now`, where the last image so far was of `last`; when the event was seen last, if that ends it.
    pub(super) fn expire(&mut self, now: Duration, last: Duration) -> Option<Duration> {
        let is_gone = |seen: Duration| now.saturating_sub(seen) > if seen < last { GRACE } else { STALL };
        self.presences.retain(|presence| !is_gone(presence.seen));
        self.event.take_if(|seen| is_gone(*seen))
    }

    /// No more is seen; when the event was seen last, if one was going on.
    pub(super) fn end(&mut self) -> Option<Duration> {
        self.presences.clear();
        self.event.take()
    }

    /// Who is there at `now`, by track; when the event began, if it is told now.
    pub(super) fn see(&mut self, now: Duration, tracks: impl IntoIterator<Item = Option<u64>>) -> Option<Duration> {
        for track in tracks {
            match self.presences.iter_mut().find(|presence| presence.track == track) {
                Some(presence) => presence.seen = now,
                None => self.presences.push(Presence { track, since: now, seen: now }),
            }
        }
        let here = self.presences.iter().filter(|presence| presence.seen == now);
        if let Some(seen) = &mut self.event {
            *seen = here.map(|_| now).next().unwrap_or(*seen);
            return None;
        }
        let long = here.filter(|presence| now.saturating_sub(presence.since) >= self.hold);
        let began = long.map(|presence| presence.since).min()?;
        self.event = Some(now);
        Some(began)
    }

    /// Whether anybody is there, if only for a moment so far.
    pub(super) fn is_empty(&self) -> bool {
        self.presences.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thing's track, and when it is seen: from and to, in tenths of a second.
    type Thing<'a> = (Option<u64>, &'a [(u64, u64)]);

    /// Begin and end of each event in tenths of a second, of ten images a second.
    fn events(hold: u64, things: &[Thing]) -> Vec<(u64, Option<u64>)> {
        events_of(1, hold, things)
    }

    /// The same with an image each `step` tenths.
    fn events_of(step: u64, hold: u64, things: &[Thing]) -> Vec<(u64, Option<u64>)> {
        let time = |tenths| Duration::from_millis(100 * tenths);
        let tenths = |time: Duration| time.as_millis() as u64 / 100;
        let mut watch = Watch::new(time(hold));
        let mut events = Vec::new();
        let mut image = 0;
        for now in 0..400 {
            if let Some(last) = watch.expire(time(now), time(image)) {
                let event: &mut (u64, Option<u64>) = events.last_mut().unwrap();
                event.1 = Some(tenths(last));
            }
            if now % step > 0 {
                continue;
            }
            image = now;
            let here = |spans: &[(u64, u64)]| spans.iter().any(|&(from, to)| (from..=to).contains(&now));
            let tracks = things.iter().filter(|(_, spans)| here(spans)).map(|&(track, _)| track);
            events.extend(watch.see(time(now), tracks).map(|began| (tenths(began), None)));
        }
        events
    }

    #[test]
    fn an_event_begins_where_a_thing_was_first_seen_and_ends_where_it_was_last_seen() {
        assert_eq!(events(20, &[(Some(1), &[(10, 60)])]), [(10, Some(60))]);
        assert_eq!(events(0, &[(None, &[(5, 5)])]), [(5, Some(5))]);
        assert_eq!(events(20, &[(Some(1), &[(10, 399)])]), [(10, None)], "it goes on");
    }

    #[test]
    fn who_does_not_stay_is_no_event() {
        assert_eq!(events(20, &[(Some(1), &[(10, 29)])]), []);
        assert_eq!(events(20, &[(Some(1), &[(10, 30)])]), [(10, Some(30))]);
        // Two that pass one after the other are no one who stays; without tracks they cannot be told apart.
        assert_eq!(events(20, &[(Some(1), &[(10, 25)]), (Some(2), &[(24, 40)])]), []);
        assert_eq!(events(20, &[(None, &[(10, 25)]), (None, &[(24, 40)])]), [(10, Some(40))]);
    }

    #[test]
    fn a_gap_shorter_than_the_grace_time_ends_nothing() {
        assert_eq!(events(20, &[(Some(1), &[(10, 20), (40, 60)])]), [(10, Some(60))]);
        assert_eq!(events(0, &[(Some(1), &[(10, 20), (41, 60)])]), [(10, Some(20)), (41, Some(60))]);
    }

    #[test]
    fn a_source_that_gives_few_images_ends_nothing_by_that() {
        // One in three seconds, as of a slide show or a camera that is asked for one at a time.
        assert_eq!(events_of(30, 20, &[(Some(1), &[(30, 120)])]), [(30, Some(120))]);
        assert_eq!(events_of(30, 0, &[(Some(1), &[(30, 60), (120, 150)])]), [(30, Some(60)), (120, Some(150))]);
        // One in eleven seconds has stalled.
        assert_eq!(events_of(110, 0, &[(Some(1), &[(0, 220)])]), [(0, Some(0)), (110, Some(110)), (220, Some(220))]);
    }

    #[test]
    fn another_thing_keeps_an_event_going() {
        assert_eq!(events(20, &[(Some(1), &[(10, 40)]), (Some(2), &[(50, 70)])]), [(10, Some(70))]);
    }

    #[test]
    fn rules_are_read_and_written() {
        let rule: Rule = "person:front door".parse().unwrap();
        assert_eq!(rule, Rule { class: "person".into(), zone: Some("front door".into()) });
        assert_eq!((rule.to_string(), rule.slug()), ("person:front door".into(), "person_front_door".into()));
        assert_eq!("16".parse::<Rule>().unwrap().zone, None);
        for bad in ["", ":door", "person:", " : "] {
            assert!(bad.parse::<Rule>().is_err(), "{bad:?}");
        }
    }
}
