//! Items that come one after another: what a method takes or gives instead of one value.

#[cfg_attr(not(any(feature = "client", feature = "plugin")), allow(dead_code))]
mod lines;
#[cfg(any(feature = "client", feature = "plugin"))]
mod wire;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use goplug_pconf_schema::{Code, Fault};
use tokio::sync::mpsc;

pub use lines::MAX_ITEM_BYTES;
#[cfg(any(feature = "client", feature = "plugin"))]
pub(crate) use {
    lines::Lines,
    wire::{Incoming, Pieces, failure, line},
};

/// Items that come one after another, of a method of an interface that takes or gives a `Stream<Item>`.
///
/// Whoever reads slowly holds back whoever sends: nothing is kept but one item, and what the connection holds. A stream that
/// was cut off ends with an error, never as if it were whole. Dropping it before its end tells the other side that nobody
/// reads any more; a call whose reply it is ends with that.
///
/// # Example: numbers that are made as they are asked for
/// ```
/// use goplug_interface::{Error, Stream};
///
/// # async fn example() -> Result<(), Error> {
/// let mut squares = Stream::new(|out| async move {
///     for n in 1.. {
///         out.send(n * n).await?;
///     }
///     Ok(())
/// });
/// assert_eq!(squares.next().await?, Some(1));
/// assert_eq!(squares.next().await?, Some(4));
/// # Ok(()) }
/// ```
pub struct Stream<T> {
    items: Box<dyn Items<T>>,
    /// How it ended: told again to whoever asks again.
    end: Option<Result<(), Fault>>,
}

/// Where items come from.
pub(crate) trait Items<T>: Send {
    /// The next one; `None` at the end. A dropped future has taken nothing.
    fn next(&mut self) -> Next<'_, T>;
}

pub(crate) type Next<'a, T> = Pin<Box<dyn Future<Output = Result<Option<T>, Fault>> + Send + 'a>>;

/// The way into a [`Stream`] that is made with [`Stream::new`].
#[derive(Debug)]
pub struct Out<T>(mpsc::Sender<T>);

impl<T: Send + 'static> Stream<T> {
    /// A stream of what `produce` sends. It runs only while somebody waits for the next item, in the task of whoever
    /// waits; it ends with an error when `produce` returns one. Dropped with the stream.
    pub fn new<F, A>(produce: F) -> Self
    where
        F: FnOnce(Out<T>) -> A,
        A: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        let (out, items) = mpsc::channel(1);
        let produce = produce(Out(out));
        Self::of(Produced { items, produce: Some(Box::pin(produce)), end: Ok(()) })
    }

    /// A stream of these.
    pub fn from_items(items: impl IntoIterator<Item = T, IntoIter: Send + 'static>) -> Self {
        Self::of(Given(items.into_iter()))
    }

    pub(crate) fn of(items: impl Items<T> + 'static) -> Self {
        Self { items: Box::new(items), end: None }
    }

    /// The next item; `None` when there will be no more.
    ///
    /// # Errors
    /// Why there will be no more although the stream is not whole: what the other side says, or why the call has ended.
    ///
    /// # Cancel safety
    /// A dropped future has taken nothing.
    pub async fn next(&mut self) -> Result<Option<T>, Fault> {
        if let Some(end) = &self.end {
            return end.clone().map(|()| None);
        }
        let next = self.items.next().await;
        self.end = match &next {
            Ok(Some(_)) => None,
            Ok(None) => Some(Ok(())),
            Err(fault) => Some(Err(fault.clone())),
        };
        next
    }

    /// All that is left; they must fit into memory.
    ///
    /// # Errors
    /// As [`Stream::next`]: then what came before is lost.
    ///
    /// # Cancel safety
    /// Not cancel safe: what was read is lost.
    pub async fn collect(mut self) -> Result<Vec<T>, Fault> {
        let mut all = Vec::new();
        while let Some(item) = self.next().await? {
            all.push(item);
        }
        Ok(all)
    }
}

impl<T: Send + 'static> From<Vec<T>> for Stream<T> {
    fn from(items: Vec<T>) -> Self {
        Self::from_items(items)
    }
}

impl<T> fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("end", &self.end).finish_non_exhaustive()
    }
}

impl<T> Out<T> {
    /// Gives the next item; waits until the one before was taken.
    ///
    /// # Errors
    /// `cancelled` when nobody reads any more: there is no reason to go on.
    ///
    /// # Cancel safety
    /// A dropped future has given nothing.
    pub async fn send(&self, item: T) -> Result<(), Fault> {
        self.0.send(item).await.map_err(|_| Fault::new(Code::Cancelled, "nobody reads any more"))
    }
}

struct Given<I>(I);

impl<I: Iterator + Send> Items<I::Item> for Given<I>
where
    I::Item: Send,
{
    fn next(&mut self) -> Next<'_, I::Item> {
        Box::pin(async { Ok(self.0.next()) })
    }
}

type Producing = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>>;

struct Produced<T> {
    items: mpsc::Receiver<T>,
    produce: Option<Producing>,
    /// What it returned.
    end: Result<(), Fault>,
}

impl<T: Send> Items<T> for Produced<T> {
    fn next(&mut self) -> Next<'_, T> {
        Box::pin(poll_fn(|cx| {
            if let Some(produce) = &mut self.produce
                && let Poll::Ready(end) = produce.as_mut().poll(cx)
            {
                (self.produce, self.end) = (None, end);
            }
            match self.items.poll_recv(cx) {
                Poll::Ready(Some(item)) => Poll::Ready(Ok(Some(item))),
                // Another task may hold the way in; what the producer returned counts once that is gone, too.
                Poll::Ready(None) if self.produce.is_none() => Poll::Ready(self.end.clone().map(|()| None)),
                Poll::Ready(None) | Poll::Pending => match (&self.produce, &self.end) {
                    (None, Err(fault)) => Poll::Ready(Err(fault.clone())),
                    _ => Poll::Pending,
                },
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_made_comes_in_order_and_an_error_ends_it_for_good() {
        let mut stream = Stream::new(|out| async move {
            for n in 0..3 {
                out.send(n).await?;
            }
            Err(Fault::new(Code::MethodFailed, "enough"))
        });
        for n in 0..3 {
            assert_eq!(stream.next().await, Ok(Some(n)));
        }
        for _ in 0..2 {
            assert_eq!(stream.next().await.unwrap_err().message, "enough");
        }
        assert_eq!(Stream::from(vec![1, 2]).collect().await, Ok(vec![1, 2]));
        let mut none = Stream::<u8>::from_items([]);
        assert_eq!((none.next().await, none.next().await), (Ok(None), Ok(None)));
    }

    #[tokio::test]
    async fn a_task_of_its_own_may_send_and_hears_when_nobody_reads() {
        let (told, hears) = tokio::sync::oneshot::channel();
        let mut stream = Stream::new(|out: Out<u8>| async move {
            tokio::spawn(async move {
                let mut sent = 0;
                while out.send(sent).await.is_ok() {
                    sent += 1;
                }
                _ = told.send(sent);
            });
            Ok(())
        });
        assert_eq!((stream.next().await, stream.next().await), (Ok(Some(0)), Ok(Some(1))));
        drop(stream);
        assert!(hears.await.unwrap() >= 2);
    }
}
