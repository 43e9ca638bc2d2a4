//! Messages as HTTP requests.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::address::{Address, AddressError, Security};
use super::message::{Kind, Message};
use super::outlet::Outlet;

/// How long a request may take, with all that it waits for.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends each message as the JSON body of a POST request.
pub(super) struct Post {
    agent: Agent,
    address: Address,
}

impl Post {
    pub(super) fn new(address: &Address) -> Result<Self, AddressError> {
        let mut config = Agent::config_builder().timeout_global(Some(TIMEOUT)).user_agent("yolo-lat");
        if let Some(Security { provider, certificates }) = address.security()? {
            let roots = certificates.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
            let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(roots)));
            config = config.tls_config(tls.unversioned_rustls_crypto_provider(provider).build());
        }
        Ok(Self { agent: config.build().into(), address: address.clone() })
    }
}

impl Outlet for Post {
    fn takes(kind: Kind) -> bool {
        kind != Kind::Update
    }

    /// An answer of 200 to 299 says that it has arrived.
    fn deliver(&mut self, message: &Message, _: &AtomicBool) -> Result<(), String> {
        let request = self.agent.post(self.address.uri()).content_type("application/json");
        match request.send(message.json()) {
            Ok(_) => Ok(()),
            Err(ureq::Error::Timeout(_)) => Err(format!("no answer in {} s", TIMEOUT.as_secs())),
            Err(ureq::Error::StatusCode(code)) => Err(format!("it answers with status {code}")),
            Err(ureq::Error::Io(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}
