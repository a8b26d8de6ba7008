// SPDX-License-Identifier: GPL-2.0

//! The part that runs in the guest: does what the host asks for, one line each, and answers.

use crate::{
    host,
    smc::{self, Side},
};
use std::{
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    process::ExitCode,
    sync::{
        atomic::{AtomicUsize, Ordering},
        Arc,
    },
    thread::{self, JoinHandle},
};

/// Where the host waits for us.
pub(crate) const PORT: u16 = 4711;
/// Where it takes SMC connections.
pub(crate) const SMC_PORT: u16 = 4712;

pub(crate) fn main(address: &str) -> ExitCode {
    let served = address
        .parse()
        .map_err(io::Error::other)
        .and_then(|ip| serve(ip, smc::connect(SocketAddrV4::new(ip, PORT), false)?));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(ip: Ipv4Addr, stream: TcpStream) -> io::Result<()> {
    // The host takes its time between two questions.
    stream.set_read_timeout(None)?;
    let mut answers = stream.try_clone()?;
    let mut state = State::default();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line == "end" {
            return Ok(());
        }
        let answer = match answer(ip, &line, &mut state) {
            Ok(answer) => format!("ok {answer}\n"),
            Err(error) => format!("error {error}\n"),
        };
        answers.write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// A connection that is kept busy until it breaks.
pub(crate) struct Busy {
    rounds: Arc<AtomicUsize>,
    thread: JoinHandle<io::Error>,
}

impl Busy {
    pub fn start(mut stream: TcpStream, side: Side) -> Self {
        let rounds = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&rounds);
        let thread = thread::spawn(move || loop {
            match smc::exchange_few(&mut stream, side) {
                Ok(_) => counter.fetch_add(1, Ordering::Relaxed),
                Err(error) => return error,
            };
        });
        Self { rounds, thread }
    }

    /// How often all data has been exchanged.
    pub fn rounds(&self) -> usize {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Waits until it breaks. Wrong data is an error, all else is the end that had to come.
    pub fn end(self) -> io::Result<(usize, io::Error)> {
        let rounds = Arc::clone(&self.rounds);
        match self.thread.join() {
            Ok(error) if error.kind() != io::ErrorKind::InvalidData => {
                Ok((rounds.load(Ordering::Relaxed), error))
            }
            Ok(error) => Err(error),
            Err(_) => Err(io::Error::other("the thread has panicked")),
        }
    }
}

/// What one question leaves to the next.
#[derive(Default)]
struct State {
    busy: Option<Busy>,
    listener: Option<TcpListener>,
}

fn answer(ip: Ipv4Addr, request: &str, state: &mut State) -> io::Result<String> {
    let smc = SocketAddrV4::new(ip, SMC_PORT);
    match request.split_whitespace().collect::<Vec<_>>()[..] {
        // The identities of the ISM devices, as soon as there are so many.
        ["devices", count] => {
            let count = count.parse().map_err(io::Error::other)?;
            host::ism_devices(count).map(|devices| devices.join(" "))
        }
        ["interrupts"] => host::pci_interrupts().map(|count| count.to_string()),
        ["exchange"] => exchange(smc::connect(smc, true)?, Side::Client),
        // The same with another guest, of which one listens and accepts, and the other connects.
        ["listen"] => {
            let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SMC_PORT);
            state.listener = Some(smc::listen(any, true)?);
            Ok(String::new())
        }
        ["accept"] => {
            let listener = state.listener.take().ok_or(io::ErrorKind::NotConnected)?;
            exchange(smc::accept(&listener)?, Side::Server)
        }
        ["exchange", other] => {
            let other = other.parse().map_err(io::Error::other)?;
            let other = SocketAddrV4::new(other, SMC_PORT);
            exchange(smc::connect(other, true)?, Side::Client)
        }
        ["busy"] => {
            state.busy = Some(Busy::start(smc::connect(smc, true)?, Side::Client));
            Ok(String::new())
        }
        ["busy-end"] => match state.busy.take() {
            Some(busy) => {
                let (rounds, error) = busy.end()?;
                Ok(format!("{rounds} rounds, {error}"))
            }
            None => Err(io::Error::other("there is no connection")),
        },
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// How many bytes there were each way, and how they were carried.
fn exchange(mut stream: TcpStream, side: Side) -> io::Result<String> {
    let bytes = smc::exchange(&mut stream, side)?;
    Ok(format!("{bytes} {}", smc::mode(&stream)?))
}
