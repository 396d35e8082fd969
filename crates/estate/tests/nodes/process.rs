//! A member in a process of its own: this test program again, told what to do line by line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Waits for `condition`; a minute is beyond any slow machine.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub struct Process {
    child: Child,
    orders: ChildStdin,
    replies: BufReader<ChildStdout>,
    greeting: String,
}

impl Process {
    /// Starts a member and waits until it has joined, or was refused.
    pub fn start(name: &str, peers: &[String]) -> Self {
        Self::patient(name, peers, Duration::from_secs(1))
    }

    /// The same; it takes members for failed that it does not hear of for `failure_after`.
    pub fn patient(name: &str, peers: &[String], failure_after: Duration) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "member::process", "--ignored", "--nocapture"])
            .env("MEMBER_NAME", name)
            .env("MEMBER_PEERS", peers.join(","))
            .env("MEMBER_FAILURE_MS", failure_after.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let replies = BufReader::new(child.stdout.take().unwrap());
        let mut process = Self {
            child,
            orders,
            replies,
            greeting: String::new(),
        };
        process.greeting = process.reply();
        process
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        self.greeting
            .strip_prefix("at ")
            .unwrap_or_else(|| panic!("{}", self.greeting))
    }

    /// Why it could not join.
    pub fn refusal(&mut self) -> &str {
        self.greeting
            .strip_prefix("refused ")
            .unwrap_or_else(|| panic!("{}", self.greeting))
    }

    pub fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// The next line that is a reply; the test harness of the member prints others.
    pub fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            let length = self.replies.read_line(&mut line).unwrap();
            assert!(length > 0, "the member has ended");
            if let Some((_, reply)) = line.trim_end_matches('\n').split_once("> ") {
                return reply.to_owned();
            }
        }
    }

    pub fn say(&mut self, order: &str) -> String {
        self.order(order);
        self.reply()
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the child is ours and has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Returns when it has stopped: between the signal and that it may still answer.
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
        let pid = self.child.id() as i32;
        // SAFETY: the child is ours; that it has stopped does not reap it.
        let stopped = unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WUNTRACED) };
        assert_eq!(stopped, pid);
    }

    pub fn go_on(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) {
        self.child.wait().unwrap();
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `count` members `n0`, `n1`, …; the first is the peer of all others.
pub fn cluster(count: usize) -> Vec<Process> {
    patient_cluster(count, Duration::from_secs(1))
}

/// The same, of members that are so patient with each other.
pub fn patient_cluster(count: usize, failure_after: Duration) -> Vec<Process> {
    let first = Process::patient("n0", &[], failure_after);
    let peers = [first.address().to_owned()];
    let mut members = vec![first];
    members.extend((1..count).map(|n| Process::patient(&format!("n{n}"), &peers, failure_after)));
    members
}
