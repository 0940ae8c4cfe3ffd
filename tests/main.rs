//! Integration tests. Most need root: they load programs and make network namespaces of their own.

#[cfg(test)]
mod above;
#[cfg(test)]
mod agent;
#[cfg(test)]
mod agree;
#[cfg(test)]
mod arrivals;
#[cfg(test)]
mod bench_verb;
#[cfg(test)]
mod boot;
#[cfg(test)]
mod bypass;
#[cfg(test)]
mod callers;
#[cfg(test)]
mod cli_explain;
#[cfg(test)]
mod confirm;
#[cfg(test)]
mod conversations;
#[cfg(test)]
mod counters;
#[cfg(test)]
mod cut;
#[cfg(test)]
mod dataplane;
#[cfg(test)]
mod diversions;
#[cfg(test)]
mod drift;
#[cfg(test)]
mod effective;
#[cfg(test)]
mod endings;
#[cfg(test)]
mod events;
#[cfg(test)]
mod export_nft;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod findings;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod flows;
#[cfg(test)]
mod guard;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod links;
#[cfg(test)]
mod living;
#[cfg(test)]
mod monitoring;
#[cfg(test)]
mod names;
mod narrowing;
#[cfg(test)]
mod newcomers;
#[cfg(test)]
mod other_host;
#[cfg(test)]
mod output;
#[cfg(test)]
mod overlay;
#[cfg(test)]
mod own;
#[cfg(test)]
mod parity;
#[cfg(test)]
mod pins;
#[cfg(test)]
mod privileges;
#[cfg(test)]
mod promote;
#[cfg(test)]
mod reasons;
#[cfg(test)]
mod report_page;
#[cfg(test)]
mod roles;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod setup;
#[cfg(test)]
mod several;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod standby;
#[cfg(test)]
mod systems;
#[cfg(test)]
mod takeover;
#[cfg(test)]
mod topology;
#[cfg(test)]
mod tunnels;
#[cfg(test)]
mod weaker;
