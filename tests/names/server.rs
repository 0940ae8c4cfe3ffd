//! A name server for one name, whose answer a test changes.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use portguard_harness::net::Host;

/// How soon the server notices that it was dropped.
const TICK: Duration = Duration::from_millis(50);

/// What is answered: addresses, or an error.
pub(crate) type Zone = Result<Vec<IpAddr>, ResponseCode>;

#[derive(Default)]
struct State {
    zone: Mutex<Option<Zone>>,
    asked: AtomicU64,
}

/// Serves until it is dropped. Every name has the same addresses, with a TTL of one second.
pub(crate) struct NameServer(Arc<State>);

impl NameServer {
    /// On UDP, on a host.
    pub(crate) fn start(host: &Host, address: SocketAddr) -> Result<Self> {
        let socket = host.run(|| UdpSocket::bind(address).context("binding the name server"))?;
        socket.set_read_timeout(Some(TICK))?;
        let state = Arc::new(State::default());
        let weak = Arc::downgrade(&state);
        std::thread::spawn(move || serve(&socket, &weak));
        Ok(Self(state))
    }

    /// Answers so from now on.
    pub(crate) fn answer(&self, zone: Zone) {
        *self.0.zone.lock().expect("no panic") = Some(zone);
    }

    /// Questions so far.
    pub(super) fn asked(&self) -> u64 {
        self.0.asked.load(Ordering::Relaxed)
    }
}

fn serve(socket: &UdpSocket, state: &Weak<State>) {
    let mut bytes = [0; 1500];
    while let Some(state) = state.upgrade() {
        let Ok((length, from)) = socket.recv_from(&mut bytes) else {
            continue;
        };
        let zone = state.zone.lock().expect("no panic").clone();
        if let Some(answer) = bytes.get(..length).and_then(|query| answer(query, zone)) {
            // Counted when it is answered: who has seen the count knows that a later change is not in it.
            let _ = socket.send_to(&answer, from);
            state.asked.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn answer(query: &[u8], zone: Option<Zone>) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(query).ok()?;
    let question = message.queries.first()?.clone();
    message.metadata.message_type = MessageType::Response;
    message.additionals.clear();
    match zone? {
        Ok(addresses) => message.add_answers(
            addresses
                .into_iter()
                .filter(|address| (question.query_type() == RecordType::AAAA) == address.is_ipv6())
                .map(|address| {
                    Record::from_rdata(question.name().clone(), 1, RData::from(address))
                }),
        ),
        Err(code) => {
            message.metadata.response_code = code;
            &mut message
        }
    };
    message.to_vec().ok()
}
