//! Many datagrams per system call: `sendmmsg(2)` and `recvmmsg(2)` over buffers set up once.
//!
//! nix wraps both calls too, but allocates per call and cannot send the received buffers back.

use libc::{iovec, mmsghdr, sockaddr_storage};
use nix::sys::socket::{SockaddrLike, SockaddrStorage};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Room for the one control message asked for, a time stamp.
const CONTROL: usize = 64;

fn empty_header() -> mmsghdr {
    // SAFETY: mmsghdr is a plain C structure; all zeroes is a message of no parts.
    unsafe { std::mem::zeroed() }
}

/// Messages on their way out. Every buffer lives as long as the batch, where it was first put.
pub struct SendBatch {
    buffers: Vec<u8>,
    stride: usize,
    parts: Vec<iovec>,
    headers: Vec<mmsghdr>,
    targets: Vec<SockaddrStorage>,
    len: usize,
}

impl SendBatch {
    /// A batch of up to `messages` messages of up to `stride` bytes, to one of `targets` each.
    pub fn new(messages: usize, stride: usize, targets: Vec<SockaddrStorage>) -> SendBatch {
        let mut buffers = vec![0u8; messages * stride];
        let mut parts: Vec<iovec> = buffers
            .chunks_exact_mut(stride)
            .map(|slot| iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: stride,
            })
            .collect();
        let headers = parts
            .iter_mut()
            .map(|part| {
                let mut header = empty_header();
                header.msg_hdr.msg_iov = part;
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        SendBatch {
            buffers,
            stride,
            parts,
            headers,
            targets,
            len: 0,
        }
    }

    /// Add a message of `len` bytes to target number `target`, or to the socket's peer. Returns its buffer.
    pub fn push(&mut self, len: usize, target: Option<usize>) -> &mut [u8] {
        assert!(self.len < self.headers.len() && len <= self.stride);
        let (name, name_len) = match target.map(|index| &self.targets[index]) {
            Some(target) => (target.as_ptr().cast_mut().cast(), target.len()),
            None => (ptr::null_mut(), 0),
        };
        let header = &mut self.headers[self.len].msg_hdr;
        header.msg_name = name;
        header.msg_namelen = name_len;
        self.parts[self.len].iov_len = len;
        let start = self.len * self.stride;
        self.len += 1;
        &mut self.buffers[start..start + len]
    }

    /// Messages in the batch.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No message in the batch.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Room for no further message.
    pub fn is_full(&self) -> bool {
        self.len == self.headers.len()
    }

    /// Empty the batch.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Send the messages from number `from` on; returns how many the kernel took.
    pub fn send(&mut self, socket: BorrowedFd<'_>, from: usize) -> io::Result<usize> {
        send_headers(socket, &mut self.headers[from..self.len])
    }
}

fn send_headers(socket: BorrowedFd<'_>, headers: &mut [mmsghdr]) -> io::Result<usize> {
    // SAFETY: every header points to a part, buffer and address owned by the batch that owns the
    // headers; none of those vectors ever grows, so the pointers hold.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            headers.len() as u32,
            0,
        )
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(sent as usize)
    }
}

/// Datagrams that came in.
pub struct RecvBatch {
    buffers: Vec<u8>,
    stride: usize,
    parts: Vec<iovec>,
    names: Vec<sockaddr_storage>,
    controls: Vec<[u64; CONTROL / 8]>,
    headers: Vec<mmsghdr>,
    replies: Vec<mmsghdr>,
}

// SAFETY: the pointers in the headers lead to this batch's own vectors, which move with it.
unsafe impl Send for RecvBatch {}

impl RecvBatch {
    /// Room for `messages` datagrams of up to `stride` bytes; longer ones are cut.
    pub fn new(messages: usize, stride: usize) -> RecvBatch {
        let mut buffers = vec![0u8; messages * stride];
        let parts = buffers
            .chunks_exact_mut(stride)
            .map(|slot| iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: stride,
            })
            .collect();
        // SAFETY: sockaddr_storage is a plain C structure; all zeroes is the unspecified family.
        let names = vec![unsafe { std::mem::zeroed() }; messages];
        RecvBatch {
            buffers,
            stride,
            parts,
            names,
            controls: vec![[0; CONTROL / 8]; messages],
            headers: (0..messages).map(|_| empty_header()).collect(),
            replies: Vec::with_capacity(messages),
        }
    }

    /// Most datagrams per call.
    pub fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Read what is there without waiting; 0: nothing. The batch's former content is gone.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        for index in 0..self.headers.len() {
            self.parts[index].iov_len = self.stride;
            let header = &mut self.headers[index].msg_hdr;
            header.msg_iov = &mut self.parts[index];
            header.msg_iovlen = 1;
            header.msg_name = ptr::from_mut(&mut self.names[index]).cast();
            header.msg_namelen = size_of::<sockaddr_storage>() as u32;
            header.msg_control = self.controls[index].as_mut_ptr().cast();
            header.msg_controllen = CONTROL;
        }
        // SAFETY: the headers point to parts, names and controls of this batch, in vectors that
        // never grow; their lengths are those of the memory behind them.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as u32,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        if count >= 0 {
            return Ok(count as usize);
        }
        match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            e => Err(e),
        }
    }

    /// Datagram number `index` of the last [`RecvBatch::receive`].
    pub fn payload(&mut self, index: usize) -> &mut [u8] {
        let len = (self.headers[index].msg_len as usize).min(self.stride);
        let start = index * self.stride;
        &mut self.buffers[start..start + len]
    }

    /// When the kernel took datagram `index` in: CLOCK_REALTIME, ns, if the socket asks for it.
    pub fn stamp(&self, index: usize) -> Option<u64> {
        let header = &self.headers[index].msg_hdr;
        // SAFETY: the kernel wrote whole control messages into `controls[index]` and set
        // msg_controllen; CMSG_FIRSTHDR stays within it, and the data of SCM_TIMESTAMPNS is a timespec.
        unsafe {
            let control = libc::CMSG_FIRSTHDR(header);
            if control.is_null()
                || (*control).cmsg_level != libc::SOL_SOCKET
                || (*control).cmsg_type != libc::SCM_TIMESTAMPNS
            {
                return None;
            }
            let time = ptr::read_unaligned(libc::CMSG_DATA(control).cast::<libc::timespec>());
            Some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
        }
    }

    /// Send the datagrams `picks`, as they stand now, back to where they came from; returns how
    /// many the kernel took.
    pub fn send_back(&mut self, socket: BorrowedFd<'_>, picks: &[usize]) -> usize {
        self.replies.clear();
        for &index in picks {
            let received = &self.headers[index];
            self.parts[index].iov_len = (received.msg_len as usize).min(self.stride);
            let mut reply = empty_header();
            reply.msg_hdr.msg_iov = received.msg_hdr.msg_iov;
            reply.msg_hdr.msg_iovlen = 1;
            reply.msg_hdr.msg_name = received.msg_hdr.msg_name;
            reply.msg_hdr.msg_namelen = received.msg_hdr.msg_namelen;
            self.replies.push(reply);
        }
        let (mut done, mut refusals) = (0, 0);
        while done < self.replies.len() && refusals < 3 {
            match send_headers(socket, &mut self.replies[done..]) {
                Ok(count) => done += count,
                // A pending error of an earlier datagram, or a full queue: told once, gone on retry.
                Err(_) => refusals += 1,
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn a_batch_arrives_in_order_and_comes_back() {
        let (a, b) = (
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        let targets = vec![SockaddrStorage::from(b.local_addr().unwrap())];
        let mut out = SendBatch::new(4, 32, targets);
        for number in 0..3u8 {
            out.push(8 + usize::from(number), Some(0)).fill(number);
        }
        assert_eq!(out.send(a.as_fd(), 0).unwrap(), 3);
        let mut back = RecvBatch::new(4, 32);
        assert_eq!(back.receive(b.as_fd()).unwrap(), 3);
        assert_eq!(back.payload(2), [2u8; 10]);
        assert_eq!(back.stamp(0), None);
        assert_eq!(back.send_back(b.as_fd(), &[2, 0]), 2);
        let mut replies = RecvBatch::new(4, 32);
        assert_eq!(replies.receive(a.as_fd()).unwrap(), 2);
        assert_eq!(
            (replies.payload(0).len(), replies.payload(1).len()),
            (10, 8)
        );
        assert_eq!(replies.receive(a.as_fd()).unwrap(), 0);
    }
}
