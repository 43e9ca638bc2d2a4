//! Addresses of receivers, which are shown without what is secret in them, and the certificates that encrypted ones are checked by.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use ureq::http::Uri;

/// What is wrong with an address; it is not repeated, since it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It cannot be read.
    #[error("this is no address: {expected}")]
    Invalid {
        /// What would be one.
        expected: &'static str,
    },
    /// Of something else.
    #[error("addresses of {scheme}:// are not known here: {expected}")]
    Scheme {
        /// What was found.
        scheme: String,
        /// What would be one.
        expected: &'static str,
    },
    /// The system has no certificates.
    #[error(
        "encrypted connections need the system's certificates: sudo apt-get install ca-certificates, or SSL_CERT_FILE=FILE"
    )]
    NoCertificates,
}

/// Whom events are told: `http(s)://[USER:PASSWORD@]HOST[:PORT][/PATH]`, or the same with `mqtt(s)`.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Uri);

impl Address {
    /// Of an HTTP receiver.
    ///
    /// # Errors
    /// [`AddressError`] for anything but `http://` and `https://`.
    pub fn http(text: &str) -> Result<Self, AddressError> {
        Self::parse(text, ["http", "https"], "http://HOST/PATH, or https://")
    }

    /// Of an MQTT broker.
    ///
    /// # Errors
    /// [`AddressError`] for anything but `mqtt://` and `mqtts://`.
    pub fn mqtt(text: &str) -> Result<Self, AddressError> {
        Self::parse(text, ["mqtt", "mqtts"], "mqtt://HOST:PORT/PREFIX, or mqtts://")
    }

    fn parse(text: &str, schemes: [&str; 2], expected: &'static str) -> Result<Self, AddressError> {
        let uri: Uri = text.parse().map_err(|_| AddressError::Invalid { expected })?;
        match uri.scheme_str() {
            Some(scheme) if !schemes.contains(&scheme) => {
                Err(AddressError::Scheme { scheme: scheme.to_owned(), expected })
            }
            Some(_) if uri.host().is_some_and(|host| !host.is_empty()) => Ok(Self(uri)),
            _ => Err(AddressError::Invalid { expected }),
        }
    }

    /// With user and password.
    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }

    /// User and password.
    pub(super) fn credentials(&self) -> Option<(String, String)> {
        let (login, _) = self.0.authority()?.as_str().rsplit_once('@')?;
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        Some((decoded(user), decoded(password)))
    }

    /// What encrypts the connection, and whom it trusts; nothing for a plain one.
    ///
    /// # Errors
    /// [`AddressError::NoCertificates`].
    pub(super) fn security(&self) -> Result<Option<Security>, AddressError> {
        if !self.0.scheme_str().is_some_and(|scheme| scheme.ends_with('s')) {
            return Ok(None);
        }
        let certificates = rustls_native_certs::load_native_certs().certs;
        if certificates.is_empty() {
            return Err(AddressError::NoCertificates);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(Some(Security { provider, certificates }))
    }
}

/// Scheme, host and port: paths and parameters may be as secret as passwords.
impl std::fmt::Display for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scheme, host) = (self.0.scheme_str().unwrap_or_default(), self.0.host().unwrap_or_default());
        write!(formatter, "{scheme}://{host}")?;
        self.0.port_u16().map_or(Ok(()), |port| write!(formatter, ":{port}"))
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, formatter)
    }
}

/// What an encrypted connection needs.
pub(super) struct Security {
    pub(super) provider: Arc<CryptoProvider>,
    /// The system's.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_secrets() {
        let address = Address::http("https://me:se%40cret@example.org:8443/hooks/token?key=1").unwrap();
        assert_eq!(format!("{address} {address:?}"), "https://example.org:8443 https://example.org:8443");
        assert_eq!(address.credentials(), Some(("me".into(), "se@cret".into())));
        let broker = Address::mqtt("mqtt://[::1]").unwrap();
        assert_eq!((broker.to_string(), broker.credentials()), ("mqtt://[::1]".into(), None));
    }

    #[test]
    fn what_is_no_address_is_said_without_repeating_it() {
        let wrong = Address::http("ftp://me:secret@h/x").unwrap_err().to_string();
        assert_eq!(wrong, "addresses of ftp:// are not known here: http://HOST/PATH, or https://");
        assert!(Address::mqtt("http://h").unwrap_err().to_string().contains("mqtt://HOST:PORT"));
        for bad in ["", "secret", "host/secret", "http://", "http:///secret", "http://a b/secret", "http://u:secret@"] {
            let error = Address::http(bad).unwrap_err().to_string();
            assert!(error.starts_with("this is no address") && !error.contains("secret"), "{bad}: {error}");
        }
    }
}
