//! One request over netlink, and its answers.

use netlink_packet_core::{
    NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;

use crate::error::Context as _;

/// Length of a netlink message's header, the least that a message has.
const HEADER: usize = 16;

/// Sends a request to the kernel and collects the answers up to the end of the dump or the acknowledgement; without
/// `NLM_F_DUMP` or `NLM_F_ACK` among the flags, one datagram.
///
/// # Errors
/// The kernel's, as [`Errno`] in the chain.
pub fn request<T>(protocol: isize, message: T, flags: u16) -> crate::Result<Vec<T>>
where
    T: NetlinkSerializable + NetlinkDeserializable,
    NetlinkMessage<T>: From<T>,
{
    let mut socket = Socket::new(protocol).context("cannot open a netlink socket")?;
    socket.bind_auto().context("cannot bind a netlink socket")?;
    socket
        .connect(&SocketAddr::new(0, 0))
        .context("cannot reach the kernel over netlink")?;
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | flags;
    request.header.sequence_number = 1;
    request.finalize();
    let mut buffer = vec![0; request.buffer_len()];
    request.serialize(&mut buffer);
    socket
        .send(&buffer, 0)
        .context("cannot send a netlink request")?;
    let many = flags & !NLM_F_REQUEST != 0;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket
            .recv_from_full()
            .context("cannot read from netlink")?;
        let mut rest = datagram.as_slice();
        while rest.len() >= HEADER {
            let parsed = NetlinkMessage::<T>::deserialize(rest).map_err(|error| {
                crate::Error::system(format!("netlink answer not understood: {error}"))
            })?;
            let length = usize::try_from(parsed.header.length)?.next_multiple_of(4);
            rest = rest.get(length.max(HEADER)..).unwrap_or_default();
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "the enum grows, and nothing else answers a request"
            )]
            match parsed.payload {
                NetlinkPayload::Error(error) => {
                    return match error.code {
                        Some(code) => Err(Errno::from_raw(-code.get()).into()),
                        None => Ok(answers),
                    };
                }
                NetlinkPayload::Done(_) => return Ok(answers),
                NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                _ => {}
            }
        }
        if !many {
            return Ok(answers);
        }
    }
}

/// What the kernel says about an interface.
///
/// # Errors
/// If there is no such interface.
pub fn link(index: u32) -> crate::Result<LinkMessage> {
    let mut question = LinkMessage::default();
    question.header.index = index;
    let answers = request(NETLINK_ROUTE, RouteNetlinkMessage::GetLink(question), 0)?;
    answers
        .into_iter()
        .find_map(|answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                Some(link)
            } else {
                None
            }
        })
        .context("the kernel says nothing about the interface")
}
