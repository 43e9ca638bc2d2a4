//! Screens, grabbed by ffmpeg: which one, which part of it, and how ffmpeg is told on each system.

use std::ffi::OsString;

use super::images::SourceError;

/// Frames a second.
const RATE: &str = "30";

/// `screen`, `screen:1`, `screen:640x480+100+50`, `screen:1:640x480+100+50`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScreenRequest {
    /// Of X11: the number behind the display's dot; of macOS: that of the screen.
    number: Option<u32>,
    area: Option<Area>,
}

/// A rectangle in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Area {
    size: (u32, u32),
    corner: (u32, u32),
}

impl ScreenRequest {
    /// Whether a text asks for a screen, rightly or not.
    pub(super) fn is_meant(text: &str) -> bool {
        text == "screen" || text.starts_with("screen:")
    }

    /// What ffmpeg is told before its filters: the device, and which part of it.
    #[cfg(not(any(windows, target_os = "macos")))]
    pub(super) fn input(&self) -> Result<Vec<OsString>, SourceError> {
        let display = std::env::var("DISPLAY").unwrap_or_default();
        if display.is_empty() {
            let reason =
                "DISPLAY is not set: only X11's screens are read, Wayland's through an X11 window system (Xwayland)";
            return Err(SourceError::Screen(reason));
        }
        let mut arguments =
            vec!["-f", "x11grab", "-framerate", RATE].into_iter().map(OsString::from).collect::<Vec<_>>();
        // `:1.0`, `host:1`: the screen stands behind the last dot after the colon.
        let place = display.rfind(':').map_or(0, |colon| colon + 1);
        let server = display[place..].find('.').map_or(&*display, |dot| &display[..place + dot]);
        let display = self.number.map_or(display.clone(), |number| format!("{server}.{number}"));
        let input = match self.area {
            Some(Area { size: (width, height), corner: (x, y) }) => {
                arguments.extend(["-video_size".into(), format!("{width}x{height}").into()]);
                format!("{display}+{x},{y}")
            }
            None => display,
        };
        arguments.extend(["-i".into(), input.into()]);
        Ok(arguments)
    }

    #[cfg(windows)]
    pub(super) fn input(&self) -> Result<Vec<OsString>, SourceError> {
        if self.number.is_some() {
            let reason = "Windows has one desktop for all screens: name the part of it, as screen:1920x1080+1920+0";
            return Err(SourceError::Screen(reason));
        }
        let mut arguments =
            vec!["-f", "gdigrab", "-framerate", RATE].into_iter().map(OsString::from).collect::<Vec<_>>();
        if let Some(Area { size: (width, height), corner: (x, y) }) = self.area {
            let [x, y, size] = [x.to_string(), y.to_string(), format!("{width}x{height}")].map(OsString::from);
            arguments.extend(["-offset_x".into(), x, "-offset_y".into(), y, "-video_size".into(), size]);
        }
        arguments.extend(["-i".into(), "desktop".into()]);
        Ok(arguments)
    }

    #[cfg(target_os = "macos")]
    pub(super) fn input(&self) -> Result<Vec<OsString>, SourceError> {
        let screen = format!("Capture screen {}:none", self.number.unwrap_or(0));
        let arguments = ["-f", "avfoundation", "-framerate", RATE, "-capture_cursor", "1", "-i", &screen];
        Ok(arguments.into_iter().map(OsString::from).collect())
    }

    /// The filter that cuts the part out, where the device gives the whole.
    pub(super) fn filter(&self) -> Option<String> {
        let Area { size: (width, height), corner: (x, y) } = self.area.filter(|_| cfg!(target_os = "macos"))?;
        Some(format!("crop={width}:{height}:{x}:{y}"))
    }
}

impl std::str::FromStr for ScreenRequest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "expected screen, perhaps with its number and a part of it, as screen:0:640x480+100+50; found {text:?}"
            )
        };
        let mut request = Self { number: None, area: None };
        let mut parts = text.split(':').skip(1).peekable();
        if let Some(number) = parts.peek().and_then(|part| part.parse().ok()) {
            request.number = Some(number);
            parts.next();
        }
        if let Some(part) = parts.next() {
            let numbers: Option<Vec<u32>> = part.split(['x', '+']).map(|number| number.parse().ok()).collect();
            let signs = part.matches(['x', '+']).collect::<String>();
            request.area = match numbers.as_deref() {
                Some(&[width, height, x, y]) if signs == "x++" && width > 0 && height > 0 => {
                    Some(Area { size: (width, height), corner: (x, y) })
                }
                _ => return Err(wrong()),
            };
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(request) }
    }
}

impl std::fmt::Display for ScreenRequest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("screen")?;
        if let Some(number) = self.number {
            write!(formatter, ":{number}")?;
        }
        match self.area {
            Some(Area { size: (width, height), corner: (x, y) }) => write!(formatter, ":{width}x{height}+{x}+{y}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screens_are_read_as_they_are_written() {
        for text in ["screen", "screen:1", "screen:640x480+0+20", "screen:0:1x2+3+4"] {
            assert_eq!(text.parse::<ScreenRequest>().unwrap().to_string(), text);
        }
        for wrong in ["screen:", "screen:a", "screen:0:640x480", "screen:0x480+1+1", "screen:1+2x3+4", "screen:1:2:3"] {
            let error = wrong.parse::<ScreenRequest>().unwrap_err();
            assert!(error.contains("screen:0:640x480+100+50"), "{wrong}: {error}");
        }
    }
}
