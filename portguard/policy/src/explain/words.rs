//! Answers in words.

use std::fmt;

use super::{Answer, Outcome, Summary};

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.protocol)?;
        if let Some(kind) = self.icmp_type {
            write!(f, " type {kind}")?;
        }
        let end = |address: &Option<std::net::IpAddr>, port: Option<u16>| match (address, port) {
            (Some(address), _) if address.is_unspecified() => {
                port.map_or("this host".to_owned(), |port| format!("port {port}"))
            }
            (Some(address), Some(port)) => std::net::SocketAddr::new(*address, port).to_string(),
            (Some(address), None) => address.to_string(),
            (None, Some(port)) => format!("port {port}"),
            (None, None) => "this host".to_owned(),
        };
        if self.source.is_some() || self.destination.is_some() {
            write!(
                f,
                " {} -> {}",
                end(&self.source, self.source_port),
                end(&self.destination, self.destination_port)
            )?;
        }
        Ok(())
    }
}

impl Answer {
    /// The verdict and the reason, without the packet.
    pub fn headline(&self) -> String {
        let cause = self
            .cause
            .map_or(String::new(), |cause| format!(" ({cause})"));
        let rows = match self.rows.as_slice() {
            [] => String::new(),
            rows => format!(" by {}", rows.join(", ")),
        };
        format!("{}: {}{cause}{rows}", self.verdict.name(), self.reason)
    }
}

/// Several lines, the last without its end.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline())?;
        write!(f, "  packet   {}, {}", self.packet, self.direction)?;
        write!(f, "\n  mode     {}", self.mode)?;
        if self.verdict == Outcome::Drop && self.mode == "audit" {
            f.write_str(": counted, not dropped")?;
        }
        for cited in &self.citations {
            write!(
                f,
                "\n  row      {}: {}\n           {}",
                cited.row, cited.purpose, cited.citation
            )?;
        }
        if self.direction == "in"
            && matches!(
                self.reason.as_str(),
                "undocumented-port" | "undocumented-peer"
            )
        {
            f.write_str("\n  note     a reply to a connection that this host opened would pass")?;
        }
        if !self.nearest.is_empty() {
            f.write_str("\n  nearest")?;
            for near in &self.nearest {
                write!(f, "\n    - {}\n      {}", near.words, near.citation)?;
            }
        }
        Ok(())
    }
}
