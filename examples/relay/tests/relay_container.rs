//! The relay's image and its systemd unit: built and started where that can be, and otherwise held against the program
//! that they start.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use relay_process::Relay;

const DOCKERFILE: &str = include_str!("../Dockerfile");
const UNIT: &str = include_str!("../relay.service");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The most bytes of the image.
const MOST: u64 = 14_500_000;

/// Returns the instructions of the last stage, with lines that go on joined.
fn image() -> Vec<(String, String)> {
    let joined = DOCKERFILE.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split = |line: &str| line.split_once(' ').map(|(of, rest)| (of.to_owned(), rest.trim().to_owned())).unwrap();
    let mut instructions: Vec<_> = lines.map(split).collect();
    let last = instructions.iter().rposition(|(of, _)| of == "FROM").unwrap();
    instructions.split_off(last)
}

fn of<'a>(image: &'a [(String, String)], instruction: &str) -> &'a str {
    let found = image.iter().find(|(of, _)| of == instruction);
    &found.unwrap_or_else(|| panic!("the image has no {instruction}")).1
}

/// Returns the variables of the image.
fn environment(image: &[(String, String)]) -> Vec<(&str, &str)> {
    let lines = image.iter().filter(|(of, _)| of == "ENV");
    lines.flat_map(|(_, pairs)| pairs.split_whitespace()).map(|pair| pair.split_once('=').unwrap()).collect()
}

/// Returns the words of a command in the form that needs no shell.
fn words(json: &str) -> Vec<String> {
    serde_json::from_str(json).unwrap_or_else(|_| panic!("{json} needs a shell"))
}

/// Returns the values of a name in the unit.
fn in_unit(name: &str) -> Vec<&'static str> {
    UNIT.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

fn relay(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    let output = command.args(arguments).envs(variables.iter().copied()).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

// === without a builder ===

#[test]
fn the_image_has_nothing_but_the_program_and_nobody_is_root_in_it() {
    let image = image();
    assert_eq!(of(&image, "FROM"), "scratch");
    assert!(!image.iter().any(|(of, _)| of == "RUN"), "there is no shell to run anything");
    let (user, group) = of(&image, "USER").split_once(':').unwrap();
    assert!([user, group].iter().all(|id| id.parse::<u32>().unwrap() > 1_000), "{user}:{group}");
    assert_eq!(words(of(&image, "ENTRYPOINT")), ["/relay"]);
    let health = of(&image, "HEALTHCHECK").split_once("CMD ").unwrap().1;
    assert_eq!(words(health), ["/relay", "--health-check"]);

    // The profile and the program exist, and no settings go to the builder.
    let manifest: toml::Table = fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap().parse().unwrap();
    assert!(DOCKERFILE.contains("--profile dist -p relay --bin relay") && manifest["profile"]["dist"].is_table());
    let ignored = include_str!("../Dockerfile.dockerignore");
    assert!(ignored.lines().any(|line| line == "*") && ignored.contains("**/relay*.toml"), "{ignored}");
    for member in manifest["workspace"]["members"].as_array().unwrap() {
        let top = member.as_str().unwrap().split('/').next().unwrap();
        assert!(ignored.lines().any(|line| line == format!("!{top}")), "{top} is missing: cargo reads its manifest");
    }
}

#[test]
fn the_program_takes_the_arguments_and_the_environment_of_the_image_and_of_the_unit() {
    let image = image();
    let settings = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("container-{}.toml", std::process::id()));
    fs::write(&settings, "upstream = \"emulator\"\nclient_tokens = [\"a-token-of-a-caller-0123\"]\n").unwrap();
    let settings = settings.display().to_string();
    let variables = environment(&image);
    let command = words(of(&image, "CMD"));
    let command: Vec<_> =
        command.iter().map(|word| if word.starts_with("/etc/") { settings.as_str() } else { word }).collect();
    let (code, said) = relay(&[&command[..], &["--check"]].concat(), &variables);
    assert_eq!(code, Some(0), "{command:?} {variables:?}: {said}");

    let variables: Vec<_> = in_unit("Environment").into_iter().map(|pair| pair.split_once('=').unwrap()).collect();
    for (name, check) in [("ExecStartPre", &[][..]), ("ExecStart", &["--check"])] {
        let line = in_unit(name)[0].replace("/etc/relay/relay.toml", &settings);
        let words: Vec<_> = line.split(' ').skip(1).chain(check.iter().copied()).collect();
        let (code, said) = relay(&words, &variables);
        assert_eq!(code, Some(0), "{line} {variables:?}: {said}");
    }
    fs::remove_file(settings).unwrap();
}

/// The test of `relay_sockets.rs` measures the memory with what the unit says.
#[test]
fn the_image_gives_memory_back_as_the_unit_does() {
    let image = image();
    let of_image: Vec<_> = environment(&image).into_iter().filter(|(name, _)| name.starts_with("MALLOC_")).collect();
    let of_unit = in_unit("Environment").into_iter().map(|pair| pair.split_once('=').unwrap());
    assert_eq!(of_image, of_unit.filter(|(name, _)| name.starts_with("MALLOC_")).collect::<Vec<_>>());
    assert_eq!(of_image.len(), 3);
}

#[test]
fn the_unit_takes_every_right_that_the_relay_does_not_need() {
    for (name, value) in [
        ("DynamicUser", "yes"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("ProtectSystem", "strict"),
        ("StateDirectory", "relay"),
        ("LimitCORE", "0"),
        ("ExecReload", "/bin/kill -HUP $MAINPID"),
    ] {
        assert_eq!(in_unit(name), [value], "{name}");
    }
    for name in ["LimitNOFILE", "MemoryMax", "TasksMax"] {
        assert_eq!(in_unit(name).len(), 1, "{name}");
    }
    // It is longer than the time that calls under way get, which is 25 s unless it is set.
    assert!(in_unit("TimeoutStopSec")[0].parse::<u32>().unwrap() > 25);
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else { return };
    assert!(version.status.success());
    // The program of this build stands for the one that is installed.
    let unit = UNIT.replace("/usr/local/bin/relay", env!("CARGO_BIN_EXE_relay"));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("relay-{}.service", std::process::id()));
    fs::write(&path, unit).unwrap();
    let verified = Command::new("systemd-analyze").arg("verify").arg(&path).output().unwrap();
    let exposed =
        Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold=20"]).arg(&path).output();
    fs::remove_file(&path).unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    let ours: Vec<_> = said.lines().filter(|line| line.contains("relay")).collect();
    assert!(verified.status.success() && ours.is_empty(), "{said}");
    // Of a hundred.
    let exposed = exposed.unwrap();
    assert!(exposed.status.success(), "{}", String::from_utf8_lossy(&exposed.stdout));
}

#[tokio::test]
async fn a_health_check_needs_neither_a_shell_nor_the_settings() {
    let mut running = Relay::start("upstream = \"emulator\"\n").await;
    let address = running.address().to_string();
    let check = |address: &str| relay(&["--health-check"], &[("RELAY_LISTEN", address)]);
    assert_eq!(check(&address), (Some(0), String::new()));
    // All addresses of the machine are asked for at one of them.
    let any = format!("0.0.0.0:{}", running.address().port());
    assert_eq!(check(&any), (Some(0), String::new()));
    running.terminate().await;
    running.ended().await;
    let (code, said) = check(&address);
    assert!(code == Some(1) && said.contains("does not answer"), "{said}");
    let (code, said) = check("127.0.0.1:0");
    assert!(code == Some(1) && said.contains("port 0"), "{said}");
}

// === the image itself ===

/// A relay in its image, or in a folder that has what the image has.
struct Contained {
    process: Child,
    /// The command that ends it, where the process that was started is not the relay itself.
    end: Option<Vec<String>>,
}

impl Drop for Contained {
    fn drop(&mut self) {
        if let Some(end) = &self.end {
            let _ = Command::new(&end[0]).args(&end[1..]).output();
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "builds the program as it is handed on, which takes minutes; CONTRIBUTING.md says when"]
fn the_image_is_small_and_serves_calls_as_nobody() {
    let has_docker = Command::new("docker").arg("info").output().is_ok_and(|info| info.status.success());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("image-{}", std::process::id()));
    fs::create_dir_all(folder.join("etc/relay")).unwrap();
    let settings = "upstream = \"emulator\"\nclient_tokens = [\"a-token-of-a-caller-0123\"]\n";
    let file = folder.join("etc/relay/relay.toml");
    fs::write(&file, settings).unwrap();
    println!("{}", if has_docker { "in an image" } else { "no builder: in a folder that has what the image has" });
    let (bytes, contained, address) = if has_docker { in_image(&file) } else { in_folder(&folder) };
    assert!(bytes <= MOST, "{bytes} bytes of {MOST}");
    println!("{bytes} bytes of {MOST}");

    let mut answer = String::new();
    let body = r#"{"contents": [{"parts": [{"text": "hello"}]}]}"#;
    let mut stream = TcpStream::connect(&*address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(
        stream,
        "POST /v1beta/models/gemini-2.5-flash:generateContent HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\
         x-goog-api-key: a-token-of-a-caller-0123\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("candidates"), "{answer}");
    if !has_docker {
        let id = contained.process.id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let ids = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
        assert!(ids.split_whitespace().skip(1).all(|id| id == "65532"), "{ids}");
    }
    drop(contained);
    fs::remove_dir_all(folder).unwrap();
}

fn in_image(settings: &Path) -> (u64, Contained, String) {
    let tag = format!("relay-test-{}", std::process::id());
    let dockerfile = Path::new(ROOT).join("examples/relay/Dockerfile");
    let build = Command::new("docker").args(["build", "-t", &tag, "-f"]).arg(dockerfile).arg(ROOT).status().unwrap();
    assert!(build.success(), "the image cannot be built");
    let size = Command::new("docker").args(["image", "inspect", "-f", "{{.Size}}", &tag]).output().unwrap();
    let size = String::from_utf8_lossy(&size.stdout).trim().parse().unwrap();
    let mount = format!("{}:/etc/relay/relay.toml:ro", settings.display());
    let limits = ["--rm", "--read-only", "--cap-drop", "ALL", "--memory", "256m", "-p", "127.0.0.1:0:8787"];
    let mut run = Command::new("docker");
    run.arg("run").args(limits).args(["--name", &tag, "-v", &mount, &tag]).stdout(Stdio::piped());
    let mut process = run.spawn().unwrap();
    first_line(&mut process);
    let port = Command::new("docker").args(["port", &tag, "8787/tcp"]).output().unwrap();
    let address = String::from_utf8_lossy(&port.stdout).lines().next().unwrap().to_owned();
    let end = ["docker", "rm", "-f", &tag].map(str::to_owned).to_vec();
    (size, Contained { process, end: Some(end) }, address)
}

/// Builds the program as the Dockerfile says, and starts it in a folder with nothing else, as the image's user.
fn in_folder(folder: &Path) -> (u64, Contained, String) {
    let host = Command::new("rustc").arg("-vV").output().unwrap();
    let host =
        String::from_utf8_lossy(&host.stdout).lines().find_map(|line| line.strip_prefix("host: ").map(str::to_owned));
    let host = host.unwrap();
    let target: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("image");
    let build = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--profile", "dist", "-p", "relay", "--bin", "relay", "--target", &host])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(ROOT)
        .status()
        .unwrap();
    assert!(build.success(), "the program cannot be built");
    let program = folder.join("relay");
    fs::copy(target.join(host).join("dist/relay"), &program).unwrap();
    let size = fs::metadata(&program).unwrap().len();

    let mut run = Command::new("/usr/sbin/chroot");
    run.args(["--userspec=65532:65532"]).arg(folder).args(["/relay", "--config", "/etc/relay/relay.toml"]);
    run.env_clear()
        .envs(environment(&image()))
        .env("RELAY_LISTEN", "127.0.0.1:0")
        .env("RELAY_OPERATOR_LISTEN", "127.0.0.1:0");
    let mut process = run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let line = first_line(&mut process);
    let address = line.trim().strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line:?}")).to_owned();
    let check = Command::new("/usr/sbin/chroot")
        .args(["--userspec=65532:65532"])
        .arg(folder)
        .args(["/relay", "--health-check"])
        .env_clear()
        .env("RELAY_LISTEN", &address)
        .status()
        .unwrap();
    assert!(check.success(), "the health check fails");
    (size, Contained { process, end: None }, address)
}

fn first_line(process: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line
}
