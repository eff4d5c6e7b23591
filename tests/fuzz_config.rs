//! Random damage to real documents: parsing never panics, ends soon, and says a bounded amount.
//!
//! Runs for `DUNLIN_FUZZ_SECONDS` (default 2). A failure prints the input. The same property is a
//! libFuzzer target in fuzz/fuzz_targets/config.rs.

use dunlin::config::{Config, MAX_ERRORS, diff};
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;
use std::time::{Duration, Instant};

/// Inputs beyond this are cut.
const MAX_INPUT: usize = 64 << 10;
/// Far more than any input here takes, on any machine.
const TOO_LONG: Duration = Duration::from_secs(10);

/// Pieces that reach the places where single bytes rarely do.
const DICTIONARY: &[&str] = &[
    "[[service]]\n",
    "[[port]]\n",
    "[bgp]\n",
    "[[bgp.neighbor]]\n",
    "[service.check]\n",
    "\"",
    "'''",
    "\"\"\"",
    "[",
    "]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\n",
    "\r\n",
    "#",
    "\0",
    "\u{feff}",
    "é",
    "\\u{0}",
    "18446744073709551616",
    "-1",
    "0",
    "65536",
    "1e999",
    "inf",
    "true",
    "\"0s\"",
    "\"1h\"",
    "\"::/0\"",
    "\"0.0.0.0/0\"",
    "\"255.255.255.255/32\"",
    "\"ffff::/116\"",
    "\"18446744073709551615h\"",
    "\"17592186044416GiB\"",
    "1979-05-27",
    "name",
    "addresses",
    "vips",
    "backend",
    "[[[[[[[[",
    "{a={a=",
];

/// xorshift64*: enough to choose damage, and reproducible from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        value as usize % limit.max(1)
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config");
    let mut seeds = Vec::new();
    for kind in ["seeds", "good", "bad"] {
        let files = fs::read_dir(folder.join(kind)).unwrap().map(|entry| entry.unwrap().path());
        let documents = files.filter(|path| path.extension().is_some_and(|e| e == "toml"));
        seeds.extend(documents.map(|path| fs::read(path).unwrap()));
    }
    assert!(seeds.len() > 10);
    seeds
}

fn damage(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(8) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(64)).min(input.len());
        match random.below(7) {
            0 => drop(input.splice(at..end, [])),
            1 => {
                let piece = input[at..end].to_vec();
                let to = random.below(input.len() + 1);
                drop(input.splice(to..to, piece));
            }
            2 => {
                let word = DICTIONARY[random.below(DICTIONARY.len())];
                drop(input.splice(at..at, word.bytes()));
            }
            3 => {
                let word = DICTIONARY[random.below(DICTIONARY.len())];
                drop(input.splice(at..end, word.bytes().cycle().take(word.len() * 200)));
            }
            4 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                drop(input.splice(at..at, other[from..].iter().copied()));
            }
            5 if at < input.len() => input[at] ^= 1 << random.below(8),
            _ if at < input.len() => input[at] = random.below(256) as u8,
            _ => {}
        }
    }
    input.truncate(MAX_INPUT);
    input
}

/// What must hold for any text.
fn check(text: &str) {
    match Config::parse(text, "fuzz.toml") {
        Ok(config) => {
            assert!(diff(&config, &config).is_empty());
            assert!(config.local_addresses.len() <= 4096);
        }
        Err(errors) => {
            let count = errors.iter().count();
            assert!((1..=MAX_ERRORS).contains(&count), "{count} errors");
            assert!(errors.to_string().len() <= MAX_ERRORS * 2048, "errors without bound");
            for error in errors.iter() {
                let position = error.position.expect("a position");
                let lines = text.split('\n').count();
                assert!((1..=lines).contains(&position.line), "{error}");
            }
        }
    }
}

#[test]
fn damaged_documents_are_refused_or_read_but_never_break_the_parser() {
    let seconds = std::env::var("DUNLIN_FUZZ_SECONDS").map_or(2, |text| text.parse().unwrap());
    let started = Instant::now();
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
    let (mut random, seeds) = (Random(seed), seeds());
    let mut count = 0u64;
    while started.elapsed() < Duration::from_secs(seconds) {
        let input = damage(&mut random, &seeds);
        let text = String::from_utf8_lossy(&input).into_owned();
        let begin = Instant::now();
        let outcome = catch_unwind(|| check(&text));
        let took = begin.elapsed();
        assert!(outcome.is_ok() && took < TOO_LONG, "seed {seed}, {took:?}, input:\n{text:?}");
        count += 1;
    }
    println!("{count} documents, seed {seed}");
}

#[test]
fn documents_made_to_be_expensive_are_not() {
    let head = "[node]\nname = \"a\"\n[[port]]\nname = \"p\"\ndevice = \"net_x\"\n\
                addresses = [\"10.0.0.1/8\"]\n";
    let many = |piece: &dyn Fn(usize) -> String, count: usize| -> String {
        (0..count).map(piece).collect()
    };
    let documents = [
        "[".repeat(1 << 20),
        format!("a = {}", "[".repeat(1 << 20)),
        format!("a = {}", "{a=".repeat(1 << 18)),
        format!("{}b = 1", "a.".repeat(1 << 19)),
        format!("[{}b]", "a.".repeat(1 << 19)),
        many(&|n| format!("k{n} = 1\n"), 100_000),
        many(&|n| format!("[a{n}]\n"), 100_000),
        format!("{head}[local]\naddresses = [{}]", "\"10.9.0.0/20\", ".repeat(50_000)),
        format!("{head}[local]\naddresses = [{}]", "\"fd00::/64\", ".repeat(50_000)),
        format!("[[service]]\nvips = [{}]", "\"192.0.2.1\", ".repeat(100_000)),
        // 1 000 × 1 000 endpoints, in each of two services.
        format!(
            "{head}{}",
            many(
                &|s| format!(
                    "[[service]]\nname = \"s{s}\"\nprotocol = \"tcp\"\nvips = [{}]\nports = [{}]\n\
                     backend = [{{ address = \"10.2.0.1\" }}]\n",
                    many(&|n| format!("\"11.{s}.{}.{}\", ", n / 250, n % 250 + 1), 1000),
                    many(&|n| format!("{}, ", n + 1), 1000),
                ),
                2
            )
        ),
        many(&|n| format!("[[service]]\nname = \"s{n}\"\n"), 50_000),
        format!("[[service]]\nname = \"s\"\n{}", "[[service.backend]]\n".repeat(70_000)),
    ];
    for document in &documents {
        let begin = Instant::now();
        let errors = Config::parse(document, "large.toml").unwrap_err();
        let start: String = document.chars().take(60).collect();
        assert!(begin.elapsed() < TOO_LONG, "{:?} for {start:?}", begin.elapsed());
        assert!(errors.to_string().len() < MAX_ERRORS * 2048, "{start:?}");
        println!("{:?} for {} bytes of {start:?}", begin.elapsed(), document.len());
    }
}
