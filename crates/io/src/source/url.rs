//! Addresses of network streams, and how they are named without what is secret in them.

use std::path::Path;

/// Schemes that ffmpeg opens.
const SCHEMES: [&str; 11] = ["http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "tcp", "udp", "mms"];
/// Parts of the names of parameters whose values are secret.
const SECRETS: [&str; 9] = ["login", "user", "usr", "pass", "pw", "token", "key", "auth", "sig"];

/// The address, if the text is one; ffmpeg opens it, which is the feature `video`.
pub fn as_url(path: &Path) -> Option<&str> {
    let text = path.to_str().filter(|_| cfg!(feature = "video"))?;
    let (scheme, rest) = text.split_once("://")?;
    (!rest.is_empty() && SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme))).then_some(text)
}

/// The address as ffmpeg wants it: its scheme in small letters.
pub(super) fn portable_url(url: &str) -> String {
    url.split_once("://").map_or_else(|| url.to_owned(), |(scheme, rest)| format!("{}://{rest}", scheme.to_lowercase()))
}

/// What is wrong with a text that looks like an address and is none.
pub fn unknown_scheme(path: &Path) -> Option<String> {
    let (scheme, _) = path.to_str()?.split_once("://").filter(|_| as_url(path).is_none() && !path.exists())?;
    let is_scheme = scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_scheme.then(|| format!("addresses of {scheme}:// are not read; those of {} are", SCHEMES.join(", ")))
}

/// How a source is named in results and messages: an address, also one that is not read, without user, password and tokens, a
/// path as it is.
pub fn display_name(path: &Path) -> String {
    let is_address = as_url(path).is_some() || unknown_scheme(path).is_some();
    path.to_str().filter(|_| is_address).map_or_else(|| path.to_string_lossy().into_owned(), without_secrets)
}

/// The name of an address's files: its letters, digits, dots and dashes.
pub fn file_stem(url: &str) -> String {
    let name = without_secrets(url);
    let name = name.split_once("://").map_or(&*name, |(_, rest)| rest);
    let kept = |letter: char| letter.is_alphanumeric() || matches!(letter, '.' | '-');
    let name: String = name.chars().map(|letter| if kept(letter) { letter } else { '_' }).collect();
    let name = name.trim_matches(['.', '_']);
    if name.is_empty() { "stream".into() } else { name.to_owned() }
}

fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    // What follows the colon of a host is a number; else it is a password, in which any letter may stand.
    let is_plain = host.rsplit_once(':').is_none_or(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let holder = if is_plain || host.contains('@') { host } else { rest };
    let rest = &rest[holder.rfind('@').map_or(0, |at| at + 1)..];
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    let query = query.map(|query| {
        let shown = |pair: &str| match pair.split_once('=') {
            Some((name, _)) if SECRETS.iter().any(|secret| name.to_lowercase().contains(secret)) => {
                format!("{name}=...")
            }
            _ => pair.to_owned(),
        };
        format!("?{}", query.split('&').map(shown).collect::<Vec<_>>().join("&"))
    });
    format!("{scheme}://{}{}", without_secret_parts(place), query.unwrap_or_default())
}

/// Cameras take parameters in the path too: `/user=admin&password=x`, `/user=admin_password=x_channel=1`. Nobody knows there where
/// a value ends, other than with the part of the path.
fn without_secret_parts(place: &str) -> String {
    let shown = |part: &str| {
        let names = part
            .match_indices('=')
            .map(|(at, _)| (at, part[..at].rsplit(['&', '_', '=', ';']).next().unwrap_or_default()));
        let is_secret = |name: &str| SECRETS.iter().any(|secret| name.to_lowercase().contains(secret));
        match names.into_iter().find(|(_, name)| is_secret(name)) {
            Some((at, _)) => format!("{}=...", &part[..at]),
            None => part.to_owned(),
        }
    };
    place.split('/').map(shown).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_paths() {
        for url in ["rtsp://cam/1", "HTTP://127.0.0.1:9/x.mjpg", "https://u:p@h/?a=b"] {
            assert!(as_url(url.as_ref()).is_some(), "{url}");
        }
        assert!(
            unknown_scheme("ftp://h/a.jpg".as_ref())
                .unwrap()
                .starts_with("addresses of ftp:// are not read; those of http")
        );
        assert!(["a.mp4", "rtsp://h", "c://x"].iter().all(|path| unknown_scheme(path.as_ref()).is_none()));
        assert_eq!(portable_url("RTSP://Cam/A"), "rtsp://Cam/A");
        for path in ["a.mp4", "12:30:00.mp4", "c://x", "http://", "data/rtsp", "/a/b://c"] {
            assert!(as_url(path.as_ref()).is_none(), "{path}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = |url: &str| display_name(url.as_ref());
        assert_eq!(shown("rtsp://admin:p@ss@cam:554/h264?channel=1"), "rtsp://cam:554/h264?channel=1");
        assert_eq!(shown("http://cam/shot.cgi?loginuse=a&pwd=b&n=2"), "http://cam/shot.cgi?loginuse=...&pwd=...&n=2");
        assert_eq!(shown("rtsp://admin:p/s?s@cam/1"), "rtsp://cam/1");
        assert_eq!(shown("http://[::1]:80/@me?mail=a@b"), "http://[::1]:80/@me?mail=a@b");
        assert_eq!(shown("ftp://me:p@h/1.mp4"), "ftp://h/1.mp4");
        assert_eq!(shown("a@b/c?pwd=1.jpg"), "a@b/c?pwd=1.jpg");
        assert_eq!(shown("rtsp://h:9/user=admin&password=s&channel=1/2"), "rtsp://h:9/user=.../2");
        assert_eq!(shown("rtsp://h/channel=1_user=admin_password=s_stream=0.sdp"), "rtsp://h/channel=1_user=...");
        assert_eq!(shown("rtsp://h/cam/realmonitor=1?pw=s&subtype=0"), "rtsp://h/cam/realmonitor=1?pw=...&subtype=0");
        assert_eq!(file_stem("rtsp://admin:p@cam:554/../live/"), "cam_554_.._live");
    }
}
