//! TLS with mutual authentication: an authority signs, a certificate stands for its node or cluster.

use std::path::Path;

use flowferry_estate::fabric::Fabric;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::rig::{Member, eventually};

/// An authority's certificate, and one for each node, as `name.pem` and `name.key`.
pub fn issue(folder: &Path, nodes: &[&str]) {
    std::fs::create_dir_all(folder).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    for node in nodes {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([(*node).to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        std::fs::write(folder.join(format!("{node}.pem")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{node}.key")), key.serialize_pem()).unwrap();
    }
}

pub fn folder(test: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tls-{test}-{}", std::process::id()))
}

#[test]
fn nodes_of_one_authority_talk_and_nothing_is_readable() {
    let files = folder("talk");
    issue(&files, &["a", "b", "test"]);
    let first = Member::new("a").tls(&files, "a").start();
    let second = Member::new("b").tls(&files, "b").peer(&first).start();
    let shared = Member::new("c").tls(&files, "test").peer(&first).start();
    for member in [&first, &second, &shared] {
        eventually("three are linked", || member.mesh.members().len() == 2);
    }
    for length in [5, 2_000_000] {
        second.mesh.send(&second.mesh.members(), &vec![7; length]);
    }
    for member in [&first, &shared] {
        eventually("both are there", || member.heard("b").len() == 2);
        assert_eq!(member.heard("b")[1], vec![7; 2_000_000]);
    }
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let (ours, theirs) = (folder("ours"), folder("theirs"));
    issue(&ours, &["a"]);
    issue(&theirs, &["b"]);
    let first = Member::new("a").tls(&ours, "a").start();
    let why = Member::new("b")
        .tls(&theirs, "b")
        .peer(&first)
        .try_start()
        .err();
    let text = why.expect("refused").to_string();
    assert!(
        text.contains(&first.address()) && text.contains("certificate"),
        "{text}"
    );
    assert!(first.mesh.members().is_empty());
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let files = folder("name");
    issue(&files, &["a", "b"]);
    let first = Member::new("a").tls(&files, "a").start();
    let why = Member::new("mallory")
        .tls(&files, "b")
        .peer(&first)
        .try_start()
        .err();
    let text = why.expect("refused").to_string();
    assert!(
        text.contains("mallory") && text.contains("alternative name"),
        "{text}"
    );
    assert!(first.mesh.members().is_empty());
}

#[test]
fn a_node_without_tls_and_one_with_it_do_not_link() {
    let files = folder("plain");
    issue(&files, &["a"]);
    let secure = Member::new("a").tls(&files, "a").start();
    let why = Member::new("b").peer(&secure).try_start().err();
    assert!(why.expect("refused").to_string().contains("TLS"));
    assert!(secure.mesh.members().is_empty());
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let member = std::panic::catch_unwind(|| Member::new("a").tls(Path::new("/nowhere"), "a"));
    let text = *member.err().unwrap().downcast::<String>().unwrap();
    assert!(text.contains("/nowhere/ca.pem"), "{text}");
}
