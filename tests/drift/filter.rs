//! What the packet filter hands on, by rules that its own tools put there and tell.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::Host;
use serde_json::Value;

use crate::guard::{Guarded, LONG};

/// Shapes of rules that say where packets go without the port standing in the rule itself; `IF` is the guarded interface,
/// `OWN` its address.
const RULES: &str = r#"
table inet shapes {
  set named { type inet_service; flags interval; elements = { 2001, 2010-2012 }; }
  map targets { type inet_service : ipv4_addr . inet_service; elements = { 2021 : 10.9.0.2 . 80 }; }
  map verdicts { type inet_service : verdict; elements = { 2031 : jump inner, 2032 : accept }; }
  chain inner { tcp dport 2031-2039 dnat ip to 10.9.0.3; }
  chain hidden { tcp dport 2090 dnat ip to 10.9.0.9; }
  chain first {
    type nat hook prerouting priority dstnat; policy accept;
    tcp dport @named redirect to :3128
    dnat ip addr . port to tcp dport map @targets
    tcp dport vmap @verdicts
    tcp dport 2032 dnat ip to 10.9.0.9
    tcp dport 2040-2049 tcp dport >= 2048 dnat ip to 10.9.0.4:80
    tcp dport & 0xfffe == 2050 dnat ip to 10.9.0.5
    ip daddr . tcp dport vmap { OWN . 2061 : jump more, 127.0.0.1 . 2062 : jump more }
    iifname "other" tcp dport 2071 dnat ip to 10.9.0.9
    iifname "IF" fib daddr type local tcp dport 2072 dnat ip to 10.9.0.6
    ip saddr 192.0.2.0/24 tcp dport 2081 dnat ip to 10.9.0.7
  }
  chain more { meta l4proto tcp dnat ip to 10.9.0.8; }
}
"#;

/// What these rules hand on, in order of ports: `certain` or `maybe`, and where to.
const WANTED: [&str; 12] = [
    "certain tcp 2001-2001 port 3128",
    "certain tcp 2010-2012 port 3128",
    "certain tcp 2021-2021 10.9.0.2:80",
    "certain tcp 2031-2031 10.9.0.3",
    "certain tcp 2048-2049 10.9.0.4:80",
    "certain tcp 2050-2051 10.9.0.5",
    "certain tcp 2061-2061 10.9.0.8",
    "certain tcp 2072-2072 10.9.0.6",
    "maybe tcp 2081-2081 10.9.0.7",
    // What iptables put there: as docker does.
    "certain tcp 2101-2101 172.30.0.2:80",
    "certain tcp 2111-2112 port 99",
    "certain tcp 2114-2114 port 99",
];

/// As docker writes them, and one more.
const OLD_RULES: [&str; 5] = [
    "-N DOCKER",
    "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
    "-A DOCKER -i docker0 -j RETURN",
    "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 2101 -j DNAT --to-destination 172.30.0.2:80",
    "-A DOCKER -p tcp -m multiport --dports 2111:2112,2114 -j REDIRECT --to-ports 99",
];

fn nft(host: &Host, text: &str) -> Result<()> {
    host.output(Command::new("nft").arg(text), LONG)?
        .success()
        .map(drop)
}

struct Answer {
    code: i32,
    json: Value,
    stderr: String,
}

fn drift(guarded: &Guarded) -> Result<Answer> {
    let args = ["drift", "--json", "--interface", guarded.interface()];
    let output = guarded.run(&args.map(str::to_owned), None)?;
    ensure!(output.code() <= 1, "{output}");
    Ok(Answer {
        code: output.code(),
        json: serde_json::from_str(&output.stdout)?,
        stderr: output.stderr,
    })
}

/// Everything that is handed on, in words.
fn told(answer: &Value) -> Result<Vec<String>> {
    let mut found = BTreeSet::new();
    for item in answer["items"].as_array().context("items")? {
        for one in item["published"].as_array().into_iter().flatten() {
            let first = one["port"].as_u64().context("a port")?;
            let last = one["port_last"].as_u64().unwrap_or(first);
            let sure = if one["certain"] == true {
                "certain"
            } else {
                "maybe"
            };
            let to = one["to"].as_str().context("a target")?;
            let transport = one["transport"].as_str().context("a transport")?;
            found.insert((first, format!("{sure} {transport} {first}-{last} {to}")));
        }
    }
    Ok(found.into_iter().map(|(_, words)| words).collect())
}

#[test]
fn rules_are_followed_through_sets_maps_and_chains_and_what_is_not_understood_is_said() -> Result<()>
{
    let guarded = Guarded::new()?;
    let link = &guarded.link.left;
    // Nothing is documented that listens nowhere: what is found is of the packet filter.
    guarded.load("--audit", &[], &[])?;
    let own = link.v4().to_string();
    nft(
        &link.host,
        &RULES
            .replace("IF", guarded.interface())
            .replace("OWN", &own),
    )?;
    for rule in OLD_RULES {
        let mut iptables = Command::new("iptables-nft");
        iptables
            .args(["-w", "-t", "nat"])
            .args(rule.split_whitespace());
        link.host.output(&mut iptables, LONG)?.success()?;
    }
    let answer = drift(&guarded)?;
    assert_eq!(told(&answer.json)?, WANTED, "{:#}", answer.json);
    assert_eq!(
        answer.json["unread"],
        Value::Array(vec![]),
        "{}",
        answer.stderr
    );
    assert_eq!(answer.stderr, "");
    let items = answer.json["items"].as_array().context("items")?;
    let of = |port: u16| items.iter().find(|item| item["port_first"] == port);
    for (port, state, may) in [
        (2001, "redirected-undocumented", Value::Null),
        (2021, "published-undocumented", Value::Null),
        (2081, "published-undocumented", true.into()),
    ] {
        let item = of(port).with_context(|| format!("{port}"))?;
        assert_eq!((&item["state"], &item["may"]), (&state.into(), &may));
    }
    let rule = &of(2021).context("2021")?["published"][0]["rule"];
    assert_eq!(
        (&rule["table"], &rule["chain"]),
        (&"shapes".into(), &"first".into())
    );
    assert!(rule["handle"].is_u64(), "{rule}");

    // A rule that nobody can follow: named, and no exit code that says that all is well.
    nft(&link.host, "delete table inet shapes; delete table ip nat")?;
    let before = drift(&guarded)?;
    assert!(
        before.json["items"]
            .as_array()
            .context("items")?
            .iter()
            .all(|item| item["published"] == Value::Array(vec![]))
    );
    nft(
        &link.host,
        "table inet raw { chain rewriting { type filter hook prerouting priority raw; \
         tcp dport 2200 tcp dport set 2201\n }\n }\n",
    )?;
    let blind = drift(&guarded)?;
    let unread = &blind.json["unread"][0];
    assert_eq!(
        (&unread["family"], &unread["table"], &unread["chain"]),
        (&"inet".into(), &"raw".into(), &"rewriting".into()),
        "{}",
        blind.json
    );
    assert!(
        unread["handle"].is_u64() && unread["why"].is_string(),
        "{unread}"
    );
    assert_eq!(blind.code, 1);
    assert!(
        blind.stderr.contains("warning: not read")
            && blind.stderr.contains("inet raw rewriting handle"),
        "{}",
        blind.stderr
    );
    Ok(())
}
