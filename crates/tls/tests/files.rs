//! What is said of files that cannot be used, each by its role and path.

use std::fs;
use std::path::PathBuf;

use flowferry_tls::{Files, Identity, Role, UnixTime};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The files of `instance-1`, valid in 2020 only.
fn issued(test: &str) -> (Folder, Files) {
    let folder =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["instance-1".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    let files = Files {
        ca: folder.join("ca.pem"),
        certificate: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    };
    fs::write(&files.ca, authority.pem()).unwrap();
    fs::write(
        &files.certificate,
        params.signed_by(&key, &authority).unwrap().pem(),
    )
    .unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    (Folder(folder), files)
}

fn year(year: u64) -> UnixTime {
    let since_1970 = std::time::Duration::from_secs((year - 1970) * 31_557_600 + 86_400 * 100);
    UnixTime::since_unix_epoch(since_1970)
}

#[test]
fn a_good_certificate_is_good_for_its_name_and_time() {
    let (_folder, files) = issued("good");
    let identity = Identity::load(&files).unwrap();
    identity.check("instance-1", year(2020)).unwrap();
    for (name, at, said) in [
        ("instance-2", 2020, "stand for instance-2"),
        ("instance-1", 2019, "not valid yet"),
        ("instance-1", 2022, "has expired"),
    ] {
        let error = identity.check(name, year(at)).unwrap_err();
        assert_eq!(
            (error.role, &error.path),
            (Role::Certificate, &files.certificate)
        );
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn a_certificate_of_another_authority_is_seen_before_it_is_used() {
    let (_folder, mut files) = issued("ours");
    let (_other, others) = issued("theirs");
    files.ca = others.ca;
    let identity = Identity::load(&files).unwrap();
    let error = identity.check("instance-1", year(2020)).unwrap_err();
    assert!(
        error.why.contains("no authority in") && error.why.contains("ca.pem"),
        "{error}"
    );
}

#[test]
fn a_key_of_another_certificate_is_named() {
    let (_folder, mut files) = issued("mine");
    let (_other, others) = issued("yours");
    files.key = others.key;
    let error = Identity::load(&files).unwrap_err();
    assert_eq!((error.role, &error.path), (Role::Key, &files.key));
    assert!(error.why.contains("it is not the key of"), "{error}");
}

#[test]
fn a_file_that_is_missing_or_something_else_is_named() {
    for role in [Role::Authority, Role::Certificate, Role::Key] {
        let (_folder, files) = issued(&format!("bad-{role:?}"));
        let path = match role {
            Role::Authority => &files.ca,
            Role::Certificate => &files.certificate,
            Role::Key => &files.key,
        };
        fs::write(path, "no PEM\n").unwrap();
        let error = Identity::load(&files).unwrap_err();
        assert_eq!((error.role, &error.path), (role, path));
        assert!(error.why.contains("in it"), "{error}");
        fs::remove_file(path).unwrap();
        let error = Identity::load(&files).unwrap_err();
        assert_eq!((error.role, &error.path), (role, path));
        assert!(error.why.contains("No such file"), "{error}");
    }
}
