// SPDX-License-Identifier: GPL-2.0

//! SMC sockets, and what is sent through them.

use rustix::net::{self, netlink, sockopt, AddressFamily, RecvFlags, SendFlags, SocketType};
use std::{
    fmt,
    io::{self, Read, Write},
    net::{SocketAddrV4, TcpListener, TcpStream},
    time::Duration,
};

/// A socket that hears nothing for this long is one of a machine that hangs.
const LIMIT: Duration = Duration::from_secs(120);

const AF_SMC: AddressFamily = AddressFamily::from_raw(43);

/// SMC sockets are TCP sockets to those who use them.
fn socket(family: AddressFamily) -> io::Result<std::os::fd::OwnedFd> {
    let socket = net::socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(LIMIT))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(LIMIT))?;
    Ok(socket)
}

/// A listener, of which `accept` has a limit.
pub(crate) fn listen(address: SocketAddrV4, smc: bool) -> io::Result<TcpListener> {
    let socket = socket(if smc { AF_SMC } else { AddressFamily::INET })?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &address)?;
    net::listen(&socket, 4)?;
    Ok(socket.into())
}

pub(crate) fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

pub(crate) fn connect(address: SocketAddrV4, smc: bool) -> io::Result<TcpStream> {
    let socket = socket(if smc { AF_SMC } else { AddressFamily::INET })?;
    net::connect(&socket, &address)?;
    Ok(socket.into())
}

/// Sizes around everything that might matter: words, cache lines, pages, the ring buffer. Their
/// sum is odd again and again, so that the data comes to lie at every alignment.
const SIZES: &[usize] = &[
    1,
    2,
    3,
    5,
    7,
    8,
    9,
    15,
    16,
    17,
    31,
    63,
    64,
    65,
    127,
    255,
    256,
    257,
    1000,
    2047,
    4095,
    4096,
    4097,
    8191,
    16385,
    65535,
    65536,
    65537,
    300_001,
    1 << 20,
];

/// Enough for a connection that is kept busy.
const FEW_SIZES: &[usize] = &[1, 77, 4096, 5001];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Sends and receives one block of each size, and compares every byte. Returns how many bytes
/// there were in each direction.
pub(crate) fn exchange(stream: &mut TcpStream, side: Side) -> io::Result<usize> {
    SIZES
        .iter()
        .map(|&size| exchange_one(stream, side, size))
        .sum()
}

/// The same with less; it takes no long time.
pub(crate) fn exchange_few(stream: &mut TcpStream, side: Side) -> io::Result<usize> {
    FEW_SIZES
        .iter()
        .map(|&size| exchange_one(stream, side, size))
        .sum()
}

fn exchange_one(stream: &mut TcpStream, side: Side, size: usize) -> io::Result<usize> {
    let (there, back) = (pattern(size, 1), pattern(size, 2));
    // One byte more in front: what the system call gets is not aligned.
    let send = |stream: &mut TcpStream, data: &[u8]| {
        let copy = [&[0], data].concat();
        stream.write_all(&copy[1..])
    };
    match side {
        Side::Client => {
            send(stream, &there)?;
            receive(stream, &back)?;
        }
        Side::Server => {
            receive(stream, &there)?;
            send(stream, &back)?;
        }
    }
    Ok(size)
}

/// Bytes of which neither a word nor a page is like its neighbours.
fn pattern(size: usize, seed: usize) -> Vec<u8> {
    let byte = |i: usize| (i * 31 + (i >> 8) * 7 + (i >> 12) + size + seed * 101) as u8;
    (0..size).map(byte).collect()
}

fn receive(stream: &mut TcpStream, expected: &[u8]) -> io::Result<()> {
    let mut data = vec![0; expected.len()];
    stream.read_exact(&mut data)?;
    match data.iter().zip(expected).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(at) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("byte {at} of {} is wrong", expected.len()),
        )),
    }
}

/// How the data of a connection is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    SmcR,
    Tcp,
    SmcD,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SmcR => "SMC-R",
            Self::Tcp => "TCP",
            Self::SmcD => "SMC-D",
        })
    }
}

/// Asks the kernel's smc_diag (include/uapi/linux/smc_diag.h) how it carries the connection.
pub(crate) fn mode(stream: &TcpStream) -> io::Result<Mode> {
    /// Offsets in struct nlmsghdr, of its end, and in struct smc_diag_msg.
    const TYPE: usize = 4;
    const HEADER: usize = 16;
    const MODE: usize = HEADER + 2;
    const PORTS: std::ops::Range<usize> = HEADER + 4..HEADER + 8;
    const NLMSG_ERROR: u16 = 2;
    const NLMSG_DONE: u16 = 3;

    let ports = [
        stream.local_addr()?.port().to_be_bytes(),
        stream.peer_addr()?.port().to_be_bytes(),
    ]
    .concat();
    let socket = net::socket(
        AddressFamily::NETLINK,
        SocketType::RAW,
        Some(netlink::SOCK_DIAG),
    )?;
    net::send(&socket, &diag_request(), SendFlags::empty())?;
    loop {
        let mut buffer = [0; 1 << 15];
        let (size, _) = net::recv(&socket, &mut buffer, RecvFlags::empty())?;
        let mut rest = &buffer[..size];
        while rest.len() >= HEADER {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            match u16::from_ne_bytes([rest[TYPE], rest[TYPE + 1]]) {
                NLMSG_ERROR | NLMSG_DONE => {
                    let what = "smc_diag does not know the connection";
                    return Err(io::Error::new(io::ErrorKind::NotFound, what));
                }
                _ if rest.get(PORTS) == Some(&ports) => {
                    return match rest[MODE] {
                        0 => Ok(Mode::SmcR),
                        1 => Ok(Mode::Tcp),
                        2 => Ok(Mode::SmcD),
                        mode => Err(io::Error::other(format!("mode {mode}"))),
                    };
                }
                _ => {}
            }
            let aligned = length.next_multiple_of(4).max(HEADER);
            rest = rest.get(aligned..).unwrap_or_default();
        }
    }
}

/// struct nlmsghdr and struct smc_diag_req: all SMC sockets, without details.
fn diag_request() -> Vec<u8> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const REQUEST_AND_DUMP: u16 = 0x301;
    const REQUEST: usize = 52;
    let size = 16 + REQUEST as u32;
    let mut bytes = size.to_ne_bytes().to_vec();
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST_AND_DUMP.to_ne_bytes());
    // Sequence number and port do not matter here.
    bytes.extend([0; 8]);
    bytes.push(AF_SMC.as_raw() as u8);
    bytes.resize(size as usize, 0);
    bytes
}
