//! OpenSSL and Python at the other end: what Cinder's driver, curl and qemu are made of.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};
use tandem_node::identity::{Credentials, Door, Identity, peer_identity, server_config};

use crate::world::{World, chain, our_client};

/// No program here runs longer.
const LIMIT_S: &str = "20";

/// One of our nodes: takes one connection, reads a line, answers with whom it talks to.
struct Node {
    address: SocketAddr,
    talk: JoinHandle<Result<(Identity, String), String>>,
}

impl Node {
    fn start(ours: &Arc<Credentials>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, config) = (listener.local_addr().unwrap(), server_config(ours, Door::Rest));
        let talk = thread::spawn(move || talk(&listener, config).map_err(|error| chain(&error)));
        Self { address, talk }
    }

    /// What came of it. If nobody connected, our own empty connection ends the wait.
    fn heard(self) -> Result<(Identity, String), String> {
        drop(TcpStream::connect(self.address));
        self.talk.join().unwrap()
    }
}

fn talk(listener: &TcpListener, config: Arc<rustls::ServerConfig>) -> std::io::Result<(Identity, String)> {
    let (socket, _) = listener.accept()?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(config).unwrap(), socket));
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let stream = stream.get_mut();
    let identity = peer_identity(&stream.conn, Door::Rest).map_err(std::io::Error::other)?;
    let body = format!("you are {identity}\n");
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok((identity, line))
}

fn limited(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.arg(LIMIT_S).arg(program);
    command
}

/// Runs it with `input` on its stdin, which then ends.
fn fed(mut command: Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that has refused already reads no more.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn s_client(world: &World, node: &Node, more: &[&str]) -> String {
    let mut command = limited("openssl");
    command.args(["s_client", "-brief", "-verify_return_error", "-x509_strict", "-ign_eof", "-CAfile"]);
    command.arg(world.path("ca.crt")).args(["-connect", &node.address.to_string()]).args(more);
    text(&fed(command, "GET / HTTP/1.1\r\n\r\n"))
}

#[test]
fn openssl_speaks_tls_1_3_with_a_node_and_is_known() {
    let world = World::new();
    let node = Node::start(&world.credentials("tandem://node/host"));
    let admin = world.issue("tandem://admin/alice", &[]);
    let (cert, key) = (admin.cert.to_str().unwrap(), admin.key.to_str().unwrap());
    let said = s_client(&world, &node, &["-cert", cert, "-key", key]);
    for word in ["TLSv1.3", "TLS_AES_128_GCM_SHA256", "Verification: OK", "you are tandem://admin/alice"] {
        assert!(said.contains(word), "{word} is not in\n{said}");
    }
    let (identity, line) = node.heard().unwrap();
    assert_eq!((identity.to_string().as_str(), line.trim()), ("tandem://admin/alice", "GET / HTTP/1.1"));
}

#[test]
fn tls_1_2_is_refused() {
    let world = World::new();
    let node = Node::start(&world.credentials("tandem://node/host"));
    let admin = world.issue("tandem://admin/alice", &[]);
    let (cert, key) = (admin.cert.to_str().unwrap(), admin.key.to_str().unwrap());
    let said = s_client(&world, &node, &["-tls1_2", "-cert", cert, "-key", key]);
    assert!(said.contains("alert protocol version"), "{said}");
    let why = node.heard().unwrap_err();
    assert!(why.contains("Tls12NotOffered") || why.contains("SupportedVersions"), "{why}");
}

#[test]
fn openssl_without_a_certificate_is_refused() {
    let world = World::new();
    let node = Node::start(&world.credentials("tandem://node/host"));
    let said = s_client(&world, &node, &[]);
    assert!(said.contains("alert certificate required"), "{said}");
    assert!(!said.contains("you are"), "{said}");
    assert!(node.heard().unwrap_err().contains("peer sent no certificates"));
}

/// As the volume driver does: it trusts our CA alone, shows its own certificate, and compares the identity of who answered.
const DRIVER: &str = r#"
import http.client, ssl, sys
port, ca, cert, key, wanted, by_address = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.verify_flags |= ssl.VERIFY_X509_STRICT
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.check_hostname = by_address == "yes"
context.load_cert_chain(cert, key)
connection = http.client.HTTPSConnection("127.0.0.1", int(port), context=context, timeout=15)
connection.connect()
names = connection.sock.getpeercert()["subjectAltName"]
identities = [name for kind, name in names if kind == "URI" and name.startswith("tandem://")]
if identities != [wanted]:
    sys.exit(f"{identities} answered where {wanted} was expected")
connection.request("GET", "/v1/pools")
answer = connection.getresponse()
print(answer.status, answer.read().decode(), connection.sock and connection.sock.version())
"#;

fn python(world: &World, node: &Node, wanted: &str, by_address: &str) -> Output {
    let cinder = world.issue("tandem://cinder/volume-1", &[]);
    let mut command = limited("python3");
    command.args(["-", &node.address.port().to_string()]).arg(world.path("ca.crt")).args([&cinder.cert, &cinder.key]);
    command.args([wanted, by_address]);
    fed(command, DRIVER)
}

#[test]
fn python_reaches_a_node_by_its_identity() {
    let world = World::new();
    let node = Node::start(&world.credentials("tandem://node/host"));
    let output = python(&world, &node, "tandem://node/host", "no");
    let said = text(&output);
    assert!(output.status.success() && said.contains("200 you are tandem://cinder/volume-1"), "{said}");
    let (identity, line) = node.heard().unwrap();
    assert_eq!((identity.to_string().as_str(), line.trim()), ("tandem://cinder/volume-1", "GET /v1/pools HTTP/1.1"));
}

#[test]
fn python_reaches_a_node_by_its_address_where_the_certificate_has_it_and_not_otherwise() {
    let world = World::new();
    for (addresses, well) in [(&["127.0.0.1"][..], true), (&["198.18.2.1"], false), (&[], false)] {
        let node = Node::start(&Credentials::load(world.issue("tandem://node/host", addresses)).unwrap());
        let output = python(&world, &node, "tandem://node/host", "yes");
        let said = text(&output);
        assert_eq!(output.status.success(), well, "{said}");
        assert_eq!(node.heard().is_ok(), well);
        assert!(well || said.contains("CERTIFICATE_VERIFY_FAILED"), "{said}");
    }
}

/// `openssl s_server` for one connection.
struct OpenSsl {
    child: Child,
    address: String,
    said: BufReader<ChildStdout>,
}

impl OpenSsl {
    fn start(world: &World, uri: &str, more: &[&str]) -> Self {
        let paths = world.issue(uri, &[]);
        let mut command = limited("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-Verify", "3", "-verify_return_error"]);
        command.arg("-CAfile").arg(world.path("ca.crt")).arg("-cert").arg(paths.cert).arg("-key").arg(paths.key);
        command.args(more).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let address = until(&mut said, |line| line.strip_prefix("ACCEPT ").map(|rest| rest.trim().to_owned()));
        Self { child, address, said }
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        // The end of its one connection ends it, or of its input; else `timeout` does. (Killing `timeout` would leave it behind.)
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The first line of which `find` makes something; the program's end is the end of the wait.
fn until<T>(said: &mut impl BufRead, find: impl Fn(&str) -> Option<T>) -> T {
    let mut all = String::new();
    loop {
        let begin = all.len();
        assert!(said.read_line(&mut all).unwrap() > 0, "it ended without that line:\n{all}");
        if let Some(found) = find(&all[begin..]) {
            return found;
        }
    }
}

fn connects(world: &World, server: &OpenSsl, wanted: &str) -> std::io::Result<()> {
    let ours = world.credentials("tandem://node/ours");
    let socket = TcpStream::connect(&server.address)?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut stream = StreamOwned::new(our_client(&ours, wanted, Door::Rest), socket);
    stream.write_all(b"a line of ours\n")?;
    stream.flush()
}

#[test]
fn a_node_reaches_a_server_of_openssl() {
    let world = World::new();
    let mut server = OpenSsl::start(&world, "tandem://node/host", &["-tls1_3"]);
    connects(&world, &server, "tandem://node/host").unwrap();
    until(&mut server.said, |line| line.contains("a line of ours").then_some(()));
}

#[test]
fn a_node_does_not_speak_tls_1_2_with_a_server_of_openssl() {
    let world = World::new();
    let server = OpenSsl::start(&world, "tandem://node/host", &["-tls1_2"]);
    let why = connects(&world, &server, "tandem://node/host").unwrap_err();
    assert!(chain(&why).contains("ProtocolVersion"), "{why}");
}

#[test]
fn openssl_finds_nothing_wrong_with_our_certificates() {
    let world = World::new();
    for (uri, purposes) in [
        ("tandem://node/host", &["sslclient", "sslserver"][..]),
        ("tandem://ha/controller", &["sslclient", "sslserver"]),
        ("tandem://cinder/volume-1", &["sslclient"]),
        ("tandem://admin/alice", &["sslclient"]),
    ] {
        let paths = world.issue(uri, &["198.18.2.1", "fd00::1", "host.example.org"]);
        for purpose in purposes {
            let verified =
                openssl(&["verify", "-x509_strict", "-purpose", purpose, "-CAfile"], &[&paths.ca, &paths.cert]);
            assert!(verified.ends_with(": OK\n"), "{verified}");
        }
        let shown = openssl(&["x509", "-noout", "-text", "-in"], &[&paths.cert]);
        let names = format!("URI:{uri}, IP Address:198.18.2.1, IP Address:FD00:0:0:0:0:0:0:1, DNS:host.example.org");
        for word in
            [&names, "prime256v1", "ecdsa-with-SHA256", "CA:FALSE", "Digital Signature", "Authority Key Identifier"]
        {
            assert!(shown.contains(word), "{word} is not in\n{shown}");
        }
        assert!(openssl(&["ec", "-noout", "-check", "-in"], &[&paths.key]).contains("EC Key valid"));
    }
    let shown = openssl(&["x509", "-noout", "-text", "-in"], &[&world.path("ca.crt")]);
    for word in ["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign", "Subject Key Identifier"] {
        assert!(shown.contains(word), "{word} is not in\n{shown}");
    }
}

#[test]
fn openssl_does_not_take_an_admins_certificate_for_a_servers() {
    let world = World::new();
    let paths = world.issue("tandem://admin/alice", &[]);
    let verified = openssl(&["verify", "-purpose", "sslserver", "-CAfile"], &[&paths.ca, &paths.cert]);
    assert!(verified.contains("unsuitable certificate purpose"), "{verified}");
}

fn openssl(arguments: &[&str], files: &[&Path]) -> String {
    text(&limited("openssl").args(arguments).args(files).output().unwrap())
}
