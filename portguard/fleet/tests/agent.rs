//! Hosts whose kernel is simulated, over real stores: what they do, and what nobody can make them do.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portguard_fleet::agent::{Agent, Documents, Guard, GuardError, Identity, InForce, Judgement};
use portguard_fleet::follow::{FollowError, ask, published, take_step, view};
use portguard_fleet::publish::publish;
use portguard_fleet::release::{
    Gate, Manifest, Plan, Release, Shard, Target, Trust, Wave, document, pack, pack_small, shards,
};
use portguard_fleet::rollout::control::{Request, Who};
use portguard_fleet::rollout::waves::{Member, assign};
use portguard_fleet::rollout::{Hold, Phase, Position};
use portguard_fleet::status::{FAILED_SECONDS, HostKey, State};
use portguard_fleet::store::{Compare, Directory, Entry, Op, Snapshot, Store, StoreError, Watch};
use portguard_fleet::{Hash, layout, now};

use crate::support::etcd::Cluster;
use crate::support::sign::{Signers, entry, made};

mod attacks;
mod back;
mod busy;
mod controller;
mod fleet;
mod kernel;
mod killed;
mod lost;
mod many;
mod refused;
mod rollouts;
mod through;

use fleet::Fleet;
use kernel::{Fuse, Simulated, digests};
use through::Through;

/// Each of these over a directory, with a test of its own; and all of them over etcd of one member and of three.
macro_rules! over_every_store {
    ($($name:ident),+ $(,)?) => {
        mod directory {
            $(
                #[tokio::test]
                async fn $name() {
                    let disk = tempfile::tempdir().unwrap();
                    super::$name(crate::agent::directory(disk.path())).await;
                }
            )+
        }

        async fn one_after_the_other(members: usize) {
            let cluster = crate::support::etcd::Cluster::start(members).await;
            let store = cluster.store();
            $(
                println!("{}", stringify!($name));
                crate::agent::empty(&store).await;
                $name(store.clone()).await;
            )+
        }

        #[tokio::test]
        async fn etcd_of_one_member() {
            one_after_the_other(1).await;
        }

        #[tokio::test]
        async fn etcd_of_three_members() {
            one_after_the_other(3).await;
        }
    };
}
use over_every_store;

/// As if nothing had been there.
async fn empty(store: &impl Store) {
    let keys = store.list("").await.unwrap().into_iter();
    let ops: Vec<Op> = keys.map(|entry| Op::Delete(entry.key)).collect();
    for some in ops.chunks(100) {
        store.commit(&[], some).await.unwrap();
    }
}

fn directory(path: &Path) -> Directory {
    Directory::new(path).every(Duration::from_millis(20))
}

fn hold(because: &str) -> Hold {
    Hold {
        because: because.to_owned(),
        by: "test".to_owned(),
        at: now(),
        until: None,
    }
}
