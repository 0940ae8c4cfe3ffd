//! The loop around a host: a step where something changed that concerns it, and now and then.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::{Agent, Guard};
use crate::store::{Snapshot, Store, Watch};

/// How soon the next step is while a host is under way, and how often so in a row: one that goes back and forth does not spin.
const SOON: Duration = Duration::from_secs(1);
const HURRIES: u32 = 5;
/// Hosts that hear of a release in the same moment do not all fetch it in the same moment.
const SPREAD: Duration = Duration::from_millis(1500);

/// Takes steps until the store is gone, and says why it is. `every`: between two where nothing happens; `heard`: when the store
/// was last heard.
pub async fn run<S: Store, G: Guard>(
    agent: &mut Agent<S, G>,
    mut watch: Watch,
    every: Duration,
    heard: &mut Instant,
) -> String {
    let mut snapshot: Option<Snapshot> = None;
    let mut hurried = 0;
    loop {
        hurried = if agent.is_under_way() && hurried < HURRIES {
            hurried + 1
        } else {
            0
        };
        let wait = if hurried > 0 { SOON.min(every) } else { every };
        // Whatever is heard that is for others, this host's next step is as soon.
        let next = Instant::now() + wait;
        loop {
            match timeout_at(next, watch.changed()).await {
                Ok(Ok(changed)) => {
                    let is_concerned = agent.is_concerned(&changed);
                    if agent.is_news(&changed) {
                        sleep(SPREAD.min(every).mul_f64(fastrand::f64())).await;
                    }
                    snapshot = Some(changed);
                    *heard = Instant::now();
                    if is_concerned {
                        break;
                    }
                }
                Ok(Err(error)) => return error.to_string(),
                Err(_) => break,
            }
        }
        let Some(snapshot) = &snapshot else {
            continue;
        };
        if let Err(error) = agent.step(snapshot).await {
            return error.to_string();
        }
        *heard = Instant::now();
    }
}
