//! The names of the states, and what they mean to an operator.

use serde::Serialize;

/// How document, listeners and traffic agree about a port. The names are stable.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum State {
    /// Somebody listens, and the rows of this host's roles that print the port open nothing here.
    ListeningLeftOut,
    /// Somebody listens, no document says so.
    ListeningUndocumented,
    /// The packet filter hands it on to a container, no document says so.
    PublishedUndocumented,
    /// The packet filter hands it on to another port of this host, no document says so.
    RedirectedUndocumented,
    /// Nobody listens and no document says so, yet packets come (or go).
    UndocumentedTrafficSeen,
    /// Documented, and packets come from (or go to) peers that the rows do not name.
    UndocumentedPeerSeen,
    /// Many ports tried that nothing listens on.
    Scan,
    /// Packets to ports of this host's own clients, in no conversation that the guard knows.
    AnswersFromElsewhere,
    /// Answers of this host that belong to nothing else here.
    UndocumentedAnswers,
    /// Documented, and nobody listens.
    DocumentedNotListening,
    /// Documented for others, and listening for this host only.
    DocumentedLoopbackOnly,
    /// Documented, listening, and used.
    DocumentedUsed,
    /// Documented and listening, not used since counting began.
    DocumentedListeningUnused,
    /// Documented and listening; no guard counts.
    DocumentedListening,
    /// Documented, and handed on to a container.
    DocumentedPublished,
    /// Documented, and handed on to another port of this host.
    DocumentedRedirected,
    /// Documented outbound, not used since counting began.
    DocumentedNeverUsed,
    /// Undocumented, and reached by this host only.
    LoopbackOnly,
    /// A UDP socket on a port that the kernel picked: a client's, most likely.
    EphemeralSocket,
}

impl State {
    /// All states, those to act on first.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// Stable name.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// What it means, and what to do about it.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::ListeningLeftOut => {
                "rows of this host's roles document this port and open nothing here, for the reason given: unreachable \
                 in enforce; complete the site if others are to reach it"
            }
            Self::ListeningUndocumented => {
                "no document opens this port: unreachable in enforce; stop the service, or add a row to the site"
            }
            Self::PublishedUndocumented => {
                "handed on to a container, and no document opens it: unreachable in enforce"
            }
            Self::RedirectedUndocumented => {
                "handed on to another port of this host, and no document opens it: unreachable in enforce"
            }
            Self::UndocumentedTrafficSeen => {
                "no document opens this port and nothing listens, yet packets were seen"
            }
            Self::DocumentedNotListening => {
                "a row opens this port and nothing listens: a service is down, moved or not part of this deployment"
            }
            Self::DocumentedLoopbackOnly => {
                "documented for other hosts, and bound to loopback: they cannot reach it"
            }
            Self::DocumentedUsed => "documented and used",
            Self::DocumentedListeningUnused => {
                "documented and listening, not used since counting began"
            }
            Self::DocumentedListening => "documented and listening; no guard counts its packets",
            Self::DocumentedPublished => "documented, and handed on to a container",
            Self::DocumentedRedirected => "documented, and handed on to another port of this host",
            Self::DocumentedNeverUsed => "documented outbound, not used since counting began",
            Self::LoopbackOnly => "reached by this host itself only",
            Self::EphemeralSocket => {
                "a UDP socket on a port that the kernel picked, most likely a client's"
            }
            Self::UndocumentedPeerSeen => {
                "documented, and packets come from (or go to) peers that its rows do not name: add the peers to the site, or let them be \
                 dropped"
            }
            Self::Scan => {
                "many ports were tried that nothing listens on: dropping these packets harms no service"
            }
            Self::AnswersFromElsewhere => {
                "packets to ports of this host's own clients, in no conversation that the guard knows: they come from another port or address \
                 than was asked (TFTP, active FTP, SSDP ...), or the guard did not see the question, did not take it for one, or had no room \
                 for it; `portguard promote` writes the row that lets them in"
            }
            Self::UndocumentedAnswers => {
                "sent by this host to client ports, in answer to nothing that was counted here"
            }
        }
    }

    /// Whether somebody should do something about it.
    pub const fn is_to_act_on(self) -> bool {
        matches!(
            self,
            Self::ListeningLeftOut
                | Self::ListeningUndocumented
                | Self::PublishedUndocumented
                | Self::RedirectedUndocumented
                | Self::UndocumentedTrafficSeen
                | Self::UndocumentedPeerSeen
                | Self::Scan
                | Self::AnswersFromElsewhere
                | Self::UndocumentedAnswers
                | Self::DocumentedNotListening
                | Self::DocumentedLoopbackOnly
        )
    }

    /// Whether it is about traffic alone: nobody listens, or not only for it.
    pub const fn is_traffic(self) -> bool {
        matches!(
            self,
            Self::UndocumentedTrafficSeen
                | Self::UndocumentedPeerSeen
                | Self::Scan
                | Self::AnswersFromElsewhere
                | Self::UndocumentedAnswers
        )
    }

    /// Whether it is said of what the packet filter hands on.
    pub const fn is_handed_on(self) -> bool {
        matches!(
            self,
            Self::PublishedUndocumented
                | Self::RedirectedUndocumented
                | Self::DocumentedPublished
                | Self::DocumentedRedirected
        )
    }
}
