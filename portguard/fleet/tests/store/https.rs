//! A web server: nginx, over TLS.

use std::time::{Duration, Instant};

use portguard_fleet::store::{Address, AnyStore, Directory, Files, Https, Store as _, StoreError};

use super::suite::changed;
use crate::support::certs::Authority;
use crate::support::nginx::Nginx;

const OFTEN: Duration = Duration::from_millis(20);

fn trusting(server: &Nginx) -> Files {
    Files {
        ca: Some(server.authority.ca()),
        ..Files::default()
    }
}

/// It answers as soon as it listens.
async fn up(store: &Https, server: &Nginx) {
    let begun = Instant::now();
    while let Err(error) = store.get("head").await {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{error}\n{}",
            server.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_a_web_server_has_is_read_and_asked_for_by_its_tag() {
    let mut server = Nginx::start(false);
    let written = Directory::new(&server.served);
    written.put("head", b"1".to_vec()).await.unwrap();
    let store = Https::asking(&server.url, &trusting(&server), OFTEN).unwrap();
    up(&store, &server).await;
    assert_eq!(store.get("head").await.unwrap().unwrap().value, b"1");
    assert_eq!(store.get("position").await.unwrap(), None);
    let big: Vec<u8> = (0..=255).cycle().take(512 << 10).collect();
    written.put("object/big", big.clone()).await.unwrap();
    assert_eq!(store.get("object/big").await.unwrap().unwrap().value, big);
    // A watch asks whether anything changed, and is answered without the content until it did.
    let mut watch = store.watch(&["head".to_owned()]).await.unwrap();
    changed(&mut watch).await;
    let whole = server.answered(200);
    let waiting = tokio::spawn(async move { changed(&mut watch).await });
    let begun = Instant::now();
    while server.answered(304) < 10 {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{}",
            server.log()
        );
        tokio::time::sleep(OFTEN).await;
    }
    assert_eq!(server.answered(200), whole, "nothing was sent twice");
    written.put("head", b"22".to_vec()).await.unwrap();
    assert_eq!(waiting.await.unwrap(), [Some(b"22".to_vec())]);
    // It can be read only.
    assert!(!store.is_writable());
    let refused = store.put("head", b"3".to_vec()).await.unwrap_err();
    assert!(matches!(refused, StoreError::ReadOnly(_)), "{refused}");
    // What is larger than any value is not read to its end.
    std::fs::write(server.served.join("huge"), vec![0; 2 << 20]).unwrap();
    assert!(store.get("huge").await.is_err());
    assert!(matches!(
        store.get("../nginx.conf").await,
        Err(StoreError::Invalid(_))
    ));
    server.stop();
    let gone = store.get("head").await.unwrap_err();
    assert!(matches!(gone, StoreError::Unreachable(_)), "{gone}");
}

#[tokio::test]
async fn a_web_server_that_we_do_not_trust_or_that_does_not_trust_us_gives_nothing() {
    let server = Nginx::start(true);
    let written = Directory::new(&server.served);
    written.put("head", b"1".to_vec()).await.unwrap();
    let ours = server.authority.issue("agent", 3600);
    let store = Https::new(&server.url, &ours).unwrap();
    up(&store, &server).await;
    // Without a certificate, with a stranger's, and where the server is a stranger.
    assert!(
        Https::new(&server.url, &trusting(&server))
            .unwrap()
            .get("head")
            .await
            .is_err()
    );
    let elsewhere = tempfile::tempdir().unwrap();
    let strangers = Authority::new(elsewhere.path());
    let mut files = strangers.issue("agent", 3600);
    let said = Https::new(&server.url, &files).unwrap().get("head").await;
    assert!(said.unwrap_err().to_string().contains("certificate"));
    files.ca = Some(server.authority.ca());
    assert!(
        Https::new(&server.url, &files)
            .unwrap()
            .get("head")
            .await
            .is_err()
    );
    // Never in the clear.
    assert!("http://localhost/served".parse::<Address>().is_err());
    let address: Address = server.url.parse().unwrap();
    let store = AnyStore::open(&address, &ours).unwrap();
    assert_eq!(store.get("head").await.unwrap().unwrap().value, b"1");
}
