//! A bare mesh of TCP links as a library would have to build it: the caller writes to every link
//! itself, one thread reads all links by epoll and wakes the caller when the last answer is there.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex};

use crate::{PAYLOAD, Scatter};

pub struct Asker {
    links: Vec<TcpStream>,
    answered: Arc<(Mutex<usize>, Condvar)>,
}

/// Level-triggered epoll over these streams; calls `ready` with the index of each readable one.
fn poll(links: &[TcpStream], mut ready: impl FnMut(usize)) -> ! {
    // SAFETY: plain system calls on descriptors that `links` keeps open; the event array is ours.
    unsafe {
        let epoll = libc::epoll_create1(0);
        for (n, link) in links.iter().enumerate() {
            let mut event = libc::epoll_event {
                events: libc::EPOLLIN as u32,
                u64: n as u64,
            };
            libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, link.as_raw_fd(), &mut event);
        }
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 32];
        loop {
            let count = libc::epoll_wait(epoll, events.as_mut_ptr(), 32, -1);
            for event in &events[..count.max(0) as usize] {
                ready(event.u64 as usize);
            }
        }
    }
}

impl Asker {
    pub fn new(ports: &[u16]) -> Self {
        let links: Vec<_> = ports
            .iter()
            .map(|&port| {
                let link = TcpStream::connect(("127.0.0.1", port)).expect("a link");
                link.set_nodelay(true).expect("no delay");
                link
            })
            .collect();
        let answered = Arc::new((Mutex::new(0), Condvar::new()));
        let readers: Vec<_> = links
            .iter()
            .map(|l| l.try_clone().expect("a clone"))
            .collect();
        let woken = Arc::clone(&answered);
        std::thread::spawn(move || {
            let mut buffer = [0; PAYLOAD];
            poll(&readers, |n| {
                if (&readers[n]).read_exact(&mut buffer).is_err() {
                    std::thread::park(); // the peers were ended: this size is done
                }
                let mut count = woken.0.lock().expect("unpoisoned");
                *count += 1;
                if *count == readers.len() {
                    woken.1.notify_one();
                }
            })
        });
        Self { links, answered }
    }
}

impl Scatter for Asker {
    fn round(&mut self, number: u64) {
        let mut buffer = [0; PAYLOAD];
        buffer[..8].copy_from_slice(&number.to_be_bytes());
        *self.answered.0.lock().expect("unpoisoned") = 0;
        for link in &mut self.links {
            link.write_all(&buffer).expect("sent");
        }
        let count = self.answered.0.lock().expect("unpoisoned");
        drop(
            self.answered
                .1
                .wait_while(count, |count| *count < self.links.len()),
        );
    }
}

pub fn serve(port: u16) -> ! {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("own port");
    println!("ready");
    let (link, _) = listener.accept().expect("a link");
    link.set_nodelay(true).expect("no delay");
    let links = [link];
    let mut buffer = [0; PAYLOAD];
    poll(&links, |n| {
        let mut link = &links[n];
        if link.read_exact(&mut buffer).is_err() || link.write_all(&buffer).is_err() {
            std::process::exit(0);
        }
    })
}
