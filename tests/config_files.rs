//! Configuration files as data: what is good parses, what is bad gives the errors written next to
//! it. `BLESS=1` rewrites the expectations; read the difference before committing it.

use dunlin::config::Config;
use std::fs;
use std::path::{Path, PathBuf};

fn fixtures(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config").join(kind);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no {kind} fixtures");
    files
}

fn parse(path: &Path) -> Result<Config, String> {
    let text = fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    Config::parse(&text, name).map_err(|errors| errors.to_string())
}

#[test]
fn good_files_parse_to_what_is_expected() {
    let mut wrong = Vec::new();
    for path in fixtures("good") {
        match parse(&path) {
            Ok(config) => compare(&path, &format!("{config:#?}\n"), &mut wrong),
            Err(errors) => wrong.push(errors),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bad_files_give_the_expected_errors() {
    let mut wrong = Vec::new();
    for path in fixtures("bad") {
        match parse(&path) {
            Ok(_) => wrong.push(format!("{} was accepted", path.display())),
            Err(errors) => {
                assert!(!errors.contains("hunter2"), "{} shows a password", path.display());
                compare(&path, &format!("{errors}\n"), &mut wrong);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn compare(path: &Path, got: &str, wrong: &mut Vec<String>) {
    let expected_path = path.with_extension("expected");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&expected_path, got).unwrap();
    }
    let expected = fs::read_to_string(&expected_path).unwrap_or_default();
    if got != expected {
        wrong.push(format!("{}:\n--- expected\n{expected}--- got\n{got}", path.display()));
    }
}

#[test]
fn a_file_that_is_not_there_or_not_text_or_too_large_is_an_error() {
    let folder = std::env::temp_dir().join(format!("dunlin-config-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let load = |name: &str| Config::load(folder.join(name)).unwrap_err().to_string();

    assert!(load("none.toml").contains("none.toml: cannot be read: No such file"));
    fs::write(folder.join("latin1.toml"), b"[node]\nname = \"caf\xe9\"\n").unwrap();
    assert!(load("latin1.toml").contains("latin1.toml:2:12: is not UTF-8 text"));
    let large = fs::File::create(folder.join("large.toml")).unwrap();
    large.set_len((16 << 20) + 1).unwrap();
    assert!(load("large.toml").contains("large.toml: is larger than 16 MiB"));

    fs::remove_dir_all(&folder).unwrap();
}
