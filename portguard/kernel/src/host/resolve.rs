//! Asking name servers: IPv4 and IPv6 by themselves, so that a failure of one does not cost the addresses of the other.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;

use portguard_policy::domains::Answers;

use crate::error::Context as _;
use crate::notice;

/// How long one question may take, before the next server is asked.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long nothing may be heard at all, however many servers are silent.
const LONGEST: Duration = Duration::from_secs(10);
/// How long nobody is told that a name server takes its time.
const QUIET: Duration = Duration::from_secs(1);
/// Addresses of one name and family that are taken: no answer makes a policy large.
const MOST: usize = 64;

/// Addresses of one family, and how long they hold; or why there is no answer. No addresses is an answer: a name may have
/// none of this family.
pub type Family = Result<(Vec<IpAddr>, Duration), String>;

/// What is known of a name: IPv4, IPv6.
pub type Answer = [Family; 2];

/// Asks name servers; where there are none, it knows why nobody answers.
#[derive(Clone)]
pub struct Resolver(Result<TokioResolver, String>);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Resolver {
    /// Asks `server`, or those of `/etc/resolv.conf`; to be called from within a tokio runtime.
    ///
    /// # Errors
    /// If nothing can be asked here. That `/etc/resolv.conf` cannot be read, or names no server, is an answer for each name: a host
    /// without any is guarded like others.
    pub fn new(server: Option<SocketAddr>) -> crate::Result<Self> {
        let mut builder = match server {
            Some(server) => {
                let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
                for connection in &mut connections {
                    connection.port = server.port();
                }
                let server = NameServerConfig::new(server.ip(), true, connections.into());
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
            None => match TokioResolver::builder_tokio() {
                Ok(builder) => builder,
                Err(error) => {
                    return Ok(Self(Err(format!(
                        "there is no name server in `/etc/resolv.conf` to ask ({error}); `--resolver ADDRESS` names one"
                    ))));
                }
            },
        };
        let options: &mut ResolverOpts = builder.options_mut();
        options.timeout = PATIENCE;
        options.attempts = 2;
        // By a port that the kernel picked, it is seen to be a client, and no service of this host.
        options.os_port_selection = true;
        // Who asks decides when to ask again.
        options.cache_size = 0;
        if server.is_some() {
            options.use_hosts_file = ResolveHosts::Never;
        }
        let resolver = builder.build().context("cannot ask name servers")?;
        Ok(Self(Ok(resolver)))
    }

    /// Asks for the addresses of a name.
    pub async fn lookup(&self, name: &str) -> Answer {
        // Absolute: the search list of this machine has no say in what a document means.
        let name = format!("{}.", name.trim_end_matches('.'));
        let (v4, v6) = tokio::join!(
            self.family(&name, RecordType::A),
            self.family(&name, RecordType::AAAA)
        );
        let is_empty = |family: &Family| family.as_ref().is_ok_and(|(found, _)| found.is_empty());
        if is_empty(&v4) && is_empty(&v6) {
            let none = || Err("it has no address".to_owned());
            return [none(), none()];
        }
        [v4, v6]
    }

    async fn family(&self, name: &str, kind: RecordType) -> Family {
        match self.0.as_ref()?.lookup(name, kind).await {
            Ok(found) => {
                let left = found
                    .valid_until()
                    .saturating_duration_since(Instant::now());
                let mut addresses: Vec<IpAddr> = found
                    .answers()
                    .iter()
                    .filter_map(|record| record.data.ip_addr())
                    .map(|address| address.to_canonical())
                    .filter(is_of_a_peer)
                    .collect();
                addresses.sort_unstable();
                addresses.dedup();
                addresses.truncate(MOST);
                Ok((addresses, left))
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if none.response_code == ResponseCode::NoError =>
            {
                let holds = none.negative_ttl.unwrap_or(0);
                Ok((Vec::new(), Duration::from_secs(holds.into())))
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if none.response_code == ResponseCode::NXDomain =>
            {
                Err("it does not exist".to_owned())
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                Err(format!("the name server says: {}", none.response_code))
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

/// No name may stand for this host itself, or for everybody.
fn is_of_a_peer(address: &IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || is_broadcast)
}

/// Asks once for each name. A name without an answer has no addresses, and its failure is among the second.
///
/// # Errors
/// See [`Resolver::new`].
pub fn once(
    names: impl IntoIterator<Item = String>,
    server: Option<SocketAddr>,
) -> crate::Result<(Answers, Vec<(String, String)>)> {
    let mut names = names.into_iter().peekable();
    if names.peek().is_none() {
        return Ok(Default::default());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot ask name servers")?;
    runtime.block_on(async { ask(&Resolver::new(server)?, names, LONGEST).await })
}

async fn ask(
    resolver: &Resolver,
    names: impl Iterator<Item = String>,
    longest: Duration,
) -> crate::Result<(Answers, Vec<(String, String)>)> {
    let mut asked = tokio::task::JoinSet::new();
    let mut open = BTreeSet::new();
    for name in names {
        open.insert(name.clone());
        let resolver = resolver.clone();
        asked.spawn(async move {
            let answer = resolver.lookup(&name).await;
            (name, answer)
        });
    }
    let total = open.len();
    let (mut answers, mut failures) = (Answers::new(), Vec::new());
    let mut end = std::pin::pin!(tokio::time::sleep(longest));
    let mut patience = std::pin::pin!(tokio::time::sleep(QUIET));
    let mut is_said = false;
    loop {
        let asked = tokio::select! {
            asked = asked.join_next() => asked,
            () = &mut patience, if !is_said => {
                is_said = true;
                notice::say(&format!(
                    "waiting for a name server to answer, at most {} s ({} of {total} names so far)",
                    longest.as_secs(),
                    answers.len()
                ));
                continue;
            }
            () = &mut end => break,
        };
        let Some(asked) = asked else { break };
        let (name, families) = asked.context("a question to a name server was interrupted")?;
        open.remove(&name);
        let mut addresses = Vec::new();
        if families.iter().any(Result::is_ok) {
            end.as_mut().reset(tokio::time::Instant::now() + longest);
        }
        for family in families {
            match family {
                Ok((found, _)) => addresses.extend(found),
                Err(why) => failures.push((name.clone(), why)),
            }
        }
        addresses.sort_unstable();
        answers.insert(name, addresses);
    }
    for name in open {
        let why = format!("no name server answered for {} s", longest.as_secs());
        failures.push((name.clone(), why));
        answers.insert(name, Vec::new());
    }
    failures.sort();
    failures.dedup();
    Ok((answers, failures))
}

/// Reads `ADDRESS`, `ADDRESS:PORT` or `[ADDRESS]:PORT`.
///
/// # Errors
/// If it is none of them.
pub fn server(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, 53));
    }
    text.parse()
        .map_err(|_no_address| format!("`{text}` is not the address of a name server"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_ports() {
        assert_eq!(server("192.0.2.1"), Ok(([192, 0, 2, 1], 53).into()));
        assert_eq!(server("192.0.2.1:5353"), Ok(([192, 0, 2, 1], 5353).into()));
        assert_eq!(server("[2001:db8::1]:54").map(|at| at.port()), Ok(54));
        assert!(server("ns.example.com").is_err());
    }

    /// However many names there are, and whoever is silent.
    #[test]
    fn nobody_is_waited_for_without_end() {
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let begun = Instant::now();
        let (answers, failures) = runtime
            .block_on(async {
                let resolver = Resolver::new(Some(silent.local_addr().unwrap()))?;
                let names = ["a.example", "b.example"].map(str::to_owned);
                ask(&resolver, names.into_iter(), Duration::from_millis(20)).await
            })
            .unwrap();
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
        assert!(answers.len() == 2 && answers.values().all(Vec::is_empty));
        let why = "no name server answered for 0 s".to_owned();
        let of = |name: &str| (name.to_owned(), why.clone());
        assert_eq!(failures, [of("a.example"), of("b.example")]);
    }

    #[test]
    fn no_name_stands_for_this_host_or_for_everybody() {
        let is = |text: &str| is_of_a_peer(&text.parse().unwrap());
        assert!(is("192.0.2.1") && is("2001:db8::1") && is("10.0.0.1"));
        for text in [
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ] {
            assert!(!is(text), "{text}");
        }
    }
}
