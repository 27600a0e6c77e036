//! Lines to standard output, by a thread of their own: whoever reads them slowly holds up nothing but them.

use std::io::{self, BufWriter, Write};
use std::thread;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

/// Lines that wait to be written.
const QUEUE: usize = 256;

/// Where lines go, and what becomes of them.
pub(super) struct Output {
    pub(super) lines: Lines,
    /// Answers once all lines are written, or one could not be.
    pub(super) written: oneshot::Receiver<io::Result<()>>,
}

/// Takes lines.
pub(super) struct Lines(mpsc::Sender<Vec<u8>>);

/// Nobody takes lines any more; why, [`Output::written`] says.
#[derive(Debug, thiserror::Error)]
#[error("the output was closed")]
pub(super) struct Closed;

impl Output {
    pub(super) fn start() -> io::Result<Self> {
        Self::to(io::stdout())
    }

    fn to(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, mut waiting) = mpsc::channel(QUEUE);
        let (tell, written) = oneshot::channel();
        thread::Builder::new().name("output".to_owned()).spawn(move || {
            let outcome = write(output, &mut waiting);
            // Told before the lines' end is seen: whoever sees that asks why.
            let _ = tell.send(outcome);
        })?;
        Ok(Self { lines: Lines(lines), written })
    }
}

fn write(output: impl Write, lines: &mut mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    let mut output = BufWriter::new(output);
    while let Some(line) = lines.blocking_recv() {
        output.write_all(&line)?;
        // What waits goes in one piece, and nothing waits for more.
        if lines.is_empty() {
            output.flush()?;
        }
    }
    output.flush()
}

impl Lines {
    /// One object, as one line.
    pub(super) async fn print(&self, object: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(object)?;
        line.push(b'\n');
        Ok(self.0.send(line).await.map_err(|_| Closed)?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct ClosedPipe;

    impl Write for ClosedPipe {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn lines_are_written_in_order_and_all_of_them_by_the_end() {
        let page = Page::default();
        let Output { lines, written } = Output::to(page.clone()).unwrap();
        for n in 0..1000 {
            lines.print(&n).await.unwrap();
        }
        drop(lines);
        written.await.unwrap().unwrap();
        let written = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        assert!(written.ends_with('\n'));
        assert_eq!(
            written.lines().map(str::to_owned).collect::<Vec<_>>(),
            (0..1000).map(|n| n.to_string()).collect::<Vec<_>>()
        );
    }

    #[tokio::test]
    async fn a_closed_pipe_ends_it_and_is_told() {
        let Output { lines, written } = Output::to(ClosedPipe).unwrap();
        let printing = async {
            loop {
                if let Err(error) = lines.print(&1).await {
                    return error;
                }
            }
        };
        assert!(printing.await.is::<Closed>());
        assert_eq!(written.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
