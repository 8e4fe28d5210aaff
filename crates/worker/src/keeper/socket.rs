//! Descriptors: the packets with the descriptors they carry, a step's pipes, sealed memory.

use std::fs::File;
use std::io;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use rustix::pipe::PipeFlags;

use super::SpawnFailure;

/// The most descriptors of one packet: stdout, stderr, an attachment, a long request's memory.
pub const DESCRIPTORS_MAX: usize = 4;

/// Both ends of a pipe for a step's output.
pub struct OutputPipe {
    /// Ours: does not block.
    pub read: OwnedFd,
    /// The step's: blocks, as programs expect.
    pub write: OwnedFd,
}

/// A pipe whose reading end does not block.
pub fn output_pipe() -> Result<OutputPipe, SpawnFailure> {
    let failure = |error: rustix::io::Errno| match error {
        rustix::io::Errno::MFILE | rustix::io::Errno::NFILE => SpawnFailure::TooManyFiles,
        other => SpawnFailure::Other { cause: other.to_string() },
    };
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failure)?;
    rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK).map_err(failure)?;
    Ok(OutputPipe { read, write })
}

/// Memory that holds `bytes` and can no longer change, readable from its start.
pub fn sealed_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let descriptor = rustix::fs::memfd_create("ropewalk", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(descriptor);
    file.write_all(bytes)?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file.into())
}

/// Sends one packet with descriptors. Does not block; never raises SIGPIPE.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[i32]) -> io::Result<()> {
    send_with(socket, bytes, descriptors, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

/// As [`send`], and waits while the socket is full.
pub fn send_blocking(socket: impl AsFd, bytes: &[u8], descriptors: &[i32]) -> io::Result<()> {
    loop {
        match send_with(&socket, bytes, descriptors, SendFlags::NOSIGNAL) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn send_with(socket: impl AsFd, bytes: &[u8], descriptors: &[i32], flags: SendFlags) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    // SAFETY: the callers hold these descriptors open until this call has returned.
    let borrowed: Vec<BorrowedFd> =
        descriptors.iter().map(|descriptor| unsafe { BorrowedFd::borrow_raw(*descriptor) }).collect();
    if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one packet"));
    }
    rustix::net::sendmsg(socket, &[io::IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

/// Takes one packet and the descriptors it carries; length zero means that the other end is closed. Does not block.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = rustix::net::recvmsg(socket, &mut [io::IoSliceMut::new(buffer)], &mut control, flags)?;
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptors.extend(rights);
        }
    }
    Ok((message.bytes, descriptors))
}

/// The first `length` bytes of sealed memory.
pub fn read_memory(memory: &OwnedFd, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match rustix::io::pread(memory, &mut bytes[filled..], filled as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    Ok(bytes)
}
