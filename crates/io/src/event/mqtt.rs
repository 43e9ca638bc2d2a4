//! Messages to an MQTT broker: events as frigate publishes them, and for Home Assistant a binary sensor for each rule.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use percent_encoding::percent_decode_str;
use rumqttc::{
    Client, ClientError, Connection, Event, LastWill, MqttOptions, Outgoing, Packet, QoS, TlsConfiguration, Transport,
};
use serde_json::json;

use super::EventsError;
use super::address::{Address, AddressError, Security};
use super::message::{Kind, Message};
use super::outlet::{Outlet, STEP};
use super::rule::Rule;

/// How long a message waits for the broker.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a broker is waited for when everything ends.
const LAST_MOMENT: Duration = Duration::from_secs(1);
/// Pauses between two attempts to reach the broker.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(4);
/// A broker that is silent for so long is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Where Home Assistant looks for what there is.
const DISCOVERY: &str = "homeassistant";
/// Topics lie under this, unless the address names another prefix.
const PREFIX: &str = "yolo-lat";

/// How many events of each rule go on, whatever has been told of them.
#[derive(Clone, Debug)]
pub(super) struct Ongoing(Arc<[AtomicUsize]>);

impl Ongoing {
    pub(super) fn of(rules: &[Rule]) -> Self {
        Self(rules.iter().map(|_| AtomicUsize::new(0)).collect())
    }

    pub(super) fn begin(&self, rule: usize) {
        self.0[rule].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self, rule: usize) {
        self.0[rule].fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is published besides events: that we are there, which sensors there are, and how they stand.
struct Topics {
    prefix: String,
    rules: Vec<Rule>,
    ongoing: Ongoing,
}

impl Topics {
    fn available(&self) -> String {
        format!("{}/available", self.prefix)
    }

    fn state(&self, rule: &Rule) -> String {
        format!("{}/{}/state", self.prefix, rule.slug())
    }

    /// That we are there, and the sensors. Retained, so that whoever comes later knows.
    fn announce(&self, client: &Client) -> Result<(), ClientError> {
        let device = self.prefix.replace('/', "_");
        for rule in &self.rules {
            let id = format!("{device}_{}", rule.slug());
            let sensor = json!({
                "name": rule.to_string(), "unique_id": id, "state_topic": self.state(rule), "payload_on": "ON", "payload_off": "OFF",
                "device_class": "occupancy", "availability_topic": self.available(),
                "device": { "identifiers": [device], "name": self.prefix, "manufacturer": "YOLO-LAT", "model": "yolo-lat" },
                "origin": { "name": "yolo-lat", "sw_version": env!("CARGO_PKG_VERSION") },
            });
            let topic = format!("{DISCOVERY}/binary_sensor/{device}/{}/config", rule.slug());
            client.try_publish(topic, QoS::AtMostOnce, true, sensor.to_string())?;
        }
        self.states(client)?;
        client.try_publish(self.available(), QoS::AtMostOnce, true, "online")
    }

    /// Whether something of each rule is there now.
    fn states(&self, client: &Client) -> Result<(), ClientError> {
        self.rules.iter().zip(&*self.ongoing.0).try_for_each(|(rule, ongoing)| {
            let state = if ongoing.load(Ordering::Relaxed) > 0 { "ON" } else { "OFF" };
            client.try_publish(self.state(rule), QoS::AtMostOnce, true, state)
        })
    }
}

/// What the connection's thread tells.
enum Signal {
    Connected,
    /// A message with this number is on its way.
    Sent(u16),
    /// The broker has it.
    Acknowledged(u16),
    Lost(String),
}

/// Publishes each message and waits until the broker has it. The connection has a thread of its own.
pub(super) struct Mqtt {
    client: Client,
    topics: Arc<Topics>,
    signals: Receiver<Signal>,
    is_connected: bool,
    /// Why the broker is not reached, once that is known.
    reason: Option<String>,
    done: Arc<AtomicBool>,
}

impl Mqtt {
    pub(super) fn connect(address: &Address, rules: &[Rule], ongoing: Ongoing) -> Result<Self, EventsError> {
        let path = address.uri().path().trim_matches('/');
        let prefix =
            if path.is_empty() { PREFIX.to_owned() } else { percent_decode_str(path).decode_utf8_lossy().into() };
        let topics = Arc::new(Topics { prefix, rules: rules.to_vec(), ongoing });
        let options = options(address, &topics).map_err(EventsError::of(address))?;
        // Everything that is announced at once fits, and a message.
        let (client, connection) = Client::new(options, 4 * rules.len() + 16);
        let (sender, signals) = channel();
        let done = Arc::<AtomicBool>::default();
        {
            let (client, topics, done) = (client.clone(), topics.clone(), done.clone());
            let run = move || keep_connected(connection, &client, &topics, &sender, &done);
            std::thread::Builder::new().name("mqtt".into()).spawn(run).map_err(EventsError::Thread)?;
        }
        Ok(Self { client, topics, signals, is_connected: false, reason: None, done })
    }

    /// Takes what the connection tells, if it tells something soon.
    fn listen(&mut self) -> Option<Signal> {
        let signal = self.signals.recv_timeout(STEP).ok()?;
        match &signal {
            Signal::Connected => (self.is_connected, self.reason) = (true, None),
            Signal::Lost(reason) => (self.is_connected, self.reason) = (false, Some(reason.clone())),
            Signal::Sent(_) | Signal::Acknowledged(_) => {}
        }
        Some(signal)
    }

    /// Publishes until the broker has it: again on another connection where one is lost.
    fn publish(
        &mut self,
        topic: &str,
        retain: bool,
        text: &str,
        until: Instant,
        stop: &AtomicBool,
    ) -> Result<(), String> {
        // What was told before is no answer to this.
        while self.listen().is_some() {}
        let (mut is_published, mut number) = (false, None);
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            if self.is_connected && !is_published {
                let published = self.client.try_publish(topic, QoS::AtLeastOnce, retain, text);
                published.map_err(|error| error.to_string())?;
                (is_published, number) = (true, None);
            }
            match self.listen() {
                Some(Signal::Sent(sent)) => number = Some(sent),
                Some(Signal::Acknowledged(acknowledged)) if number == Some(acknowledged) => return Ok(()),
                Some(Signal::Lost(_)) => is_published = false,
                _ => {}
            }
        }
        Err(self.reason.clone().unwrap_or_else(|| "no answer".into()))
    }
}

impl Outlet for Mqtt {
    fn takes(kind: Kind) -> bool {
        kind != Kind::Clip
    }

    fn deliver(&mut self, message: &Message, stop: &AtomicBool) -> Result<(), String> {
        let topic = format!("{}/events", self.topics.prefix);
        self.publish(&topic, false, &message.json(), Instant::now() + TIMEOUT, stop)?;
        self.topics.states(&self.client).map_err(|error| error.to_string())
    }

    fn health(&mut self) -> Option<Result<(), String>> {
        while self.listen().is_some() {}
        self.reason.clone().map(Err).or(self.is_connected.then_some(Ok(())))
    }

    fn end(&mut self, stop: &AtomicBool) {
        let (topic, until) = (self.topics.available(), Instant::now() + LAST_MOMENT);
        // A broker that is not told learns it by itself: our last will.
        if self.is_connected && self.publish(&topic, true, "offline", until, stop).is_ok() {
            self.done.store(true, Ordering::Relaxed);
            let _ = self.client.try_disconnect();
            while self.is_connected && Instant::now() < until {
                self.listen();
            }
        }
        self.done.store(true, Ordering::Relaxed);
    }
}

fn options(address: &Address, topics: &Topics) -> Result<MqttOptions, AddressError> {
    // Brokers end the older one of two clients of a name.
    let started = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    let name = format!("yolo-lat-{:x}-{:x}", std::process::id(), started & 0xFFFF_FFFF);
    let security = address.security()?;
    let port = address.uri().port_u16().unwrap_or(if security.is_some() { 8883 } else { 1883 });
    let mut options = MqttOptions::new(name, address.uri().host().unwrap_or_default(), port);
    options.set_keep_alive(KEEP_ALIVE);
    options.set_last_will(LastWill::new(topics.available(), "offline", QoS::AtLeastOnce, true));
    if let Some((user, password)) = address.credentials() {
        options.set_credentials(user, password);
    }
    if let Some(Security { provider, certificates }) = security {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(certificates);
        let config = rustls::ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().map_err(|_| AddressError::NoCertificates)?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config))));
    }
    Ok(options)
}

/// Connects again and again, with growing pauses, until `done` is set.
fn keep_connected(
    mut connection: Connection,
    client: &Client,
    topics: &Topics,
    signals: &Sender<Signal>,
    done: &AtomicBool,
) {
    let mut pause = FIRST_RETRY;
    let mut is_lost = false;
    for event in connection.iter() {
        let signal = match event {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                pause = FIRST_RETRY;
                match topics.announce(client) {
                    Ok(()) => Signal::Connected,
                    Err(error) => Signal::Lost(error.to_string()),
                }
            }
            Ok(Event::Outgoing(Outgoing::Publish(number))) if number != 0 => Signal::Sent(number),
            Ok(Event::Incoming(Packet::PubAck(acknowledged))) => Signal::Acknowledged(acknowledged.pkid),
            Ok(_) => continue,
            Err(error) => Signal::Lost(error.to_string()),
        };
        let was_lost = std::mem::replace(&mut is_lost, matches!(signal, Signal::Lost(_)));
        // That it still is lost is no news.
        let is_heard = (is_lost && was_lost) || signals.send(signal).is_ok();
        if !is_heard || is_lost && done.load(Ordering::Relaxed) {
            return;
        }
        if is_lost {
            std::thread::sleep(pause);
            pause = (2 * pause).min(LAST_RETRY);
        }
    }
}
