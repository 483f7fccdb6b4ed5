//! `walden` with encrypted archives: flags, configuration, what is said and what is never said.

use crate::common::{Place, name, segment};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Makes a key as `age-keygen` does, in a file below the scratch directory. Answers with the public key.
fn make_key(place: &Place, file: &str) -> String {
    let keygen = |args: &[&str]| {
        let ran = Command::new("age-keygen").args(args).output();
        let ran = ran.expect("age-keygen is not there; scripts/prerequisites installs it");
        assert!(ran.status.success(), "{ran:?}");
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    };
    let path = place.text(file);
    keygen(&["-o", &path]);
    keygen(&["-y", &path])
}

fn write_segment(place: &Place, number: u32) -> String {
    let path = place.path("data/pg_wal").join(name(number));
    fs::write(&path, segment(number, crate::common::SYSTEM)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn who_encrypts_a_file_of_no_known_cluster_is_warned_and_nobody_else() {
    let place = Place::new();
    let public = make_key(&place, "key");
    let archive = place.text("archive");
    let encrypted = |source: &str| {
        let flags = ["archive", source, "-A", &archive, "--recipients", &public];
        place.walden(&flags).exits(0)
    };
    let warning = "warning: it was encrypted without a digest";
    // Away from any data directory.
    let elsewhere = place.path(&name(1));
    fs::write(&elsewhere, segment(1, crate::common::SYSTEM)).unwrap();
    encrypted(elsewhere.to_str().unwrap()).says(warning);
    let plain = place.path(&name(2));
    fs::write(&plain, segment(2, crate::common::SYSTEM)).unwrap();
    let other = place.text("plain");
    fs::create_dir(&other).unwrap();
    let said = place.walden(&["archive", plain.to_str().unwrap(), "-A", &other]);
    assert!(!said.exits(0).stderr.contains(warning));
}

#[test]
fn flags_encrypt_and_decrypt_and_a_list_tells_it() {
    let place = Place::new();
    let public = make_key(&place, "key");
    let archive = place.text("archive");
    let source = write_segment(&place, 1);
    place
        .walden(&["archive", &source, "-A", &archive, "--recipients", &public])
        .exits(0);
    let stored = fs::read(place.path("archive").join(name(1))).unwrap();
    assert!(stored.starts_with(b"age-encryption.org/v1\n"));
    let listed = place.walden(&["list", "-A", &archive]).exits(0);
    listed
        .prints(&format!("{}  age ", name(1)))
        .prints(", all encrypted in \"");
    let document = place.walden(&["list", "--json", "-A", &archive]).exits(0);
    let document: serde_json::Value = serde_json::from_str(&document.stdout).unwrap();
    assert_eq!(document["files"][0]["form"], "age");

    let dest = place.text("restored");
    place
        .walden(&["restore", &name(1), &dest, "-A", &archive])
        .exits(200)
        .says(&format!(
            "is encrypted for {public}, and \"walden.identity_file\" is not set"
        ));
    assert!(!place.path("restored").exists());
    // A path as a person gives it: from where the person is.
    place
        .walden(&[
            "restore",
            &name(1),
            &dest,
            "-A",
            &archive,
            "--identity-file",
            "key",
        ])
        .exits(0);
    assert_eq!(fs::read(dest).unwrap(), segment(1, crate::common::SYSTEM));
}

#[test]
fn the_configuration_of_a_data_directory_encrypts_and_decrypts() {
    let place = Place::new();
    let public = make_key(&place, "key");
    place.configure(&format!(
        "walden.archive = 'ARCHIVE'\nwalden.recipients = '{public}'\nwalden.identity_file = '{}'\n",
        place.text("key")
    ));
    write_segment(&place, 1);
    let data = place.text("data");
    place.walden(&["archive", &name(1), "-D", &data]).exits(0);
    let sealed = place.path("archive").join(name(1));
    let stored = fs::read(sealed).unwrap();
    assert!(stored.starts_with(b"age-encryption.org/v1\n"));
    let dest = place.text("data/pg_wal/RECOVERYXLOG");
    place
        .walden(&["restore", &name(1), &dest, "-D", &data])
        .exits(0);
    assert_eq!(fs::read(dest).unwrap(), segment(1, crate::common::SYSTEM));
}

#[test]
fn an_identity_file_that_is_wrong_or_missing_is_never_the_end_of_wal() {
    let place = Place::new();
    let public = make_key(&place, "key");
    let wrong = make_key(&place, "wrong");
    let archive = place.text("archive");
    let source = write_segment(&place, 1);
    place
        .walden(&["archive", &source, "-A", &archive, "--recipients", &public])
        .exits(0);
    let dest = place.text("restored");
    for (file, said) in [
        ("wrong", format!("is for {wrong}")),
        ("none", "No such file".to_owned()),
    ] {
        let args = [
            "restore",
            &name(1),
            &dest,
            "-A",
            &archive,
            "--identity-file",
            file,
            "--timeout",
            "0",
        ];
        place.walden(&args).exits(200).says(&said);
        assert!(!place.path("restored").exists());
    }
}

#[test]
fn a_secret_key_in_the_wrong_place_is_refused_and_not_repeated() {
    let place = Place::new();
    make_key(&place, "key");
    let text = fs::read_to_string(place.path("key")).unwrap();
    let secret = text
        .lines()
        .find(|line| line.starts_with("AGE-SECRET-KEY-"))
        .unwrap();
    let archive = place.text("archive");
    for flag in ["--recipients", "--identity-file"] {
        let attached = format!("{flag}={secret}");
        for args in [
            vec!["list", "-A", &archive, flag, secret],
            vec!["list", "-A", &archive, &attached],
        ] {
            let ran = place.walden(&args);
            assert_eq!(ran.status, 1, "{ran:?}");
            let said = format!("{}{}", ran.stdout, ran.stderr);
            assert!(said.contains("a secret key was given"), "{said}");
            assert!(!said.contains(&secret[20..40]), "{said}");
        }
    }
    place
        .walden(&["list", "-A", &archive, "--recipients", "age1nobody"])
        .exits(1)
        .says("invalid value for parameter \"walden.recipients\": recipient \"age1nobody\" is not an age public key");
}

#[test]
fn a_recipients_flag_that_names_nobody_archives_nothing_in_the_clear() {
    let place = Place::new();
    let source = write_segment(&place, 1);
    let archive = place.text("archive");
    place
        .walden(&["archive", &source, "-A", &archive, "--recipients", ""])
        .exits(1)
        .says("--recipients names no recipient");
    assert_eq!(fs::read_dir(place.path("archive")).unwrap().count(), 0);
}

#[test]
fn check_tries_a_round_trip_and_looks_at_the_permissions() {
    let place = Place::new();
    let public = make_key(&place, "key");
    let wrong = make_key(&place, "wrong");
    let archive = place.text("archive");
    let check = |more: &[&str]| place.walden(&[&["check", "-A", &archive], more].concat());
    let plain = check(&[]).exits(0);
    assert!(!plain.stdout.contains("encrypted"), "{plain:?}");
    check(&["--recipients", &public]).exits(0).prints(&format!(
        "passed   new files are encrypted for {public}; restoring needs an identity"
    ));
    check(&["--recipients", &public, "--identity-file", "key"])
        .exits(0)
        .prints(&format!(
            "passed   files that are encrypted for {public} can be read with identity file \""
        ));
    check(&["--recipients", &public, "--identity-file", "wrong"])
        .exits(1)
        .prints(&format!(
            "FAILED   what is archived is encrypted for {public}, and identity file \""
        ))
        .prints(&format!("is for {wrong}"))
        .prints("cure: Add the identity of a recipient to the file");
    check(&["--identity-file", "none"])
        .exits(1)
        .prints("FAILED   could not read identity file \"");
    check(&["--identity-file", "key"])
        .exits(0)
        .prints(&format!("opens files that are encrypted for {public}"));
    fs::set_permissions(place.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    check(&["--recipients", &public, "--identity-file", "key"])
        .exits(0)
        .prints("key\" is open to others, its mode is 0644")
        .prints("cure: Let the server's user alone read it: chmod 600 ");
}
