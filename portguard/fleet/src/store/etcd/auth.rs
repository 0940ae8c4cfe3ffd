//! Classes of certificates: etcd takes a certificate's common name for a user, and each class is one. A user a host would
//! be quadratic in etcd, and is not needed: what hosts write is signed.

use super::proto;
use super::{Etcd, ROOT, end_of};
use crate::layout;
use crate::store::StoreError;

/// Agents: read what is published, write what hosts say.
pub const AGENT: &str = "portguard-agent";
/// Readers: read everything.
pub const READER: &str = "portguard-reader";
/// Controllers: move the position.
pub const CONTROLLER: &str = "portguard-controller";
/// Publishers: write everything.
pub const PUBLISHER: &str = "portguard-publisher";

/// Every class, and what it may write; all of them read everything.
pub fn classes() -> [(&'static str, Vec<&'static str>); 4] {
    [
        (
            AGENT,
            vec![layout::STATUSES, layout::ALIVE, layout::EVIDENCE],
        ),
        (READER, Vec::new()),
        (
            CONTROLLER,
            vec![layout::POSITION, layout::CONTROLLER, layout::HISTORY],
        ),
        (PUBLISHER, vec![""]),
    ]
}

/// Whether whoever reaches etcd may do everything, since its authorisation is off.
///
/// # Errors
/// If etcd does not answer.
pub async fn is_open(store: &Etcd) -> Result<bool, StoreError> {
    // The one question that each version answers, and that says so without any right: a login that nobody has.
    let request = proto::AuthenticateRequest {
        name: "portguard".to_owned(),
        password: String::new(),
    };
    let answer: Result<proto::Empty, StoreError> = store
        .ask("/etcdserverpb.Auth/Authenticate", request, false)
        .await;
    match answer {
        Err(StoreError::Refused(why)) => Ok(why.contains("not enabled")),
        Err(error) => Err(error),
        Ok(_) => Ok(false),
    }
}

/// Makes the classes, and turns authorisation on; who asks has the certificate of etcd's `root`.
///
/// # Errors
/// What etcd refuses; what is there already is no error.
pub async fn set_up(store: &Etcd) -> Result<(), StoreError> {
    user(store, "root").await?;
    role(store, "root").await?;
    grant_role(store, "root").await?;
    for (class, writes) in classes() {
        user(store, class).await?;
        role(store, class).await?;
        permit(store, class, "", proto::READ).await?;
        for prefix in writes {
            permit(store, class, prefix, proto::READ_WRITE).await?;
        }
        grant_role(store, class).await?;
    }
    let _: proto::Empty = store
        .ask("/etcdserverpb.Auth/AuthEnable", proto::Empty {}, false)
        .await?;
    store.0.link.lock().await.link = None;
    Ok(())
}

async fn user(store: &Etcd, name: &str) -> Result<(), StoreError> {
    let request = proto::UserAddRequest {
        name: name.to_owned(),
        options: Some(proto::UserOptions { no_password: true }),
    };
    once(
        store
            .ask::<_, proto::Empty>("/etcdserverpb.Auth/UserAdd", request, false)
            .await,
    )
}

async fn role(store: &Etcd, name: &str) -> Result<(), StoreError> {
    let request = proto::RoleAddRequest {
        name: name.to_owned(),
    };
    once(
        store
            .ask::<_, proto::Empty>("/etcdserverpb.Auth/RoleAdd", request, false)
            .await,
    )
}

async fn grant_role(store: &Etcd, name: &str) -> Result<(), StoreError> {
    let request = proto::UserRoleRequest {
        user: name.to_owned(),
        role: name.to_owned(),
    };
    once(
        store
            .ask::<_, proto::Empty>("/etcdserverpb.Auth/UserGrantRole", request, false)
            .await,
    )
}

async fn permit(store: &Etcd, role: &str, prefix: &str, kind: i32) -> Result<(), StoreError> {
    let key = format!("{ROOT}{prefix}").into_bytes();
    let is_tree = prefix.is_empty() || prefix.ends_with('/');
    let request = proto::RoleGrantRequest {
        name: role.to_owned(),
        permission: Some(proto::Permission {
            kind,
            range_end: if is_tree { end_of(&key) } else { Vec::new() },
            key,
        }),
    };
    let _: proto::Empty = store
        .ask("/etcdserverpb.Auth/RoleGrantPermission", request, false)
        .await?;
    Ok(())
}

/// What is there already is as it should be.
fn once(result: Result<proto::Empty, StoreError>) -> Result<(), StoreError> {
    match result {
        Err(StoreError::Refused(why)) if why.contains("already") => Ok(()),
        other => other.map(|_| ()),
    }
}
