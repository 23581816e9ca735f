//! The ceiling: a bare hyper server that reads the same bytes with quick-xml and sends a fixed answer.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use quick_xml::NsReader;
use quick_xml::events::Event;
use tokio::net::TcpListener;

/// Serves on loopback for the life of `runtime`; every POST is answered by `answer` with `status`.
pub(crate) fn serve(runtime: &tokio::runtime::Runtime, status: u16, answer: Vec<u8>) -> SocketAddr {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Bytes::from(answer);
    runtime.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| reply(request, status, answer.clone()));
                let _ = hyper::server::conn::http1::Builder::new()
                    .pipeline_flush(true)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

async fn reply(
    request: Request<Incoming>,
    status: u16,
    answer: Bytes,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    std::hint::black_box(walk(std::str::from_utf8(&body).unwrap()));
    Ok(Response::builder()
        .status(status)
        .header("Content-Type", "application/soap+xml;charset=UTF-8")
        .body(Full::new(answer))
        .unwrap())
}

/// Every event of the document with its namespace resolved.
pub(crate) fn walk(text: &str) -> usize {
    let mut reader = NsReader::from_str(text);
    let mut events = 0;
    loop {
        let (namespace, event) = reader.read_resolved_event().unwrap();
        std::hint::black_box(&namespace);
        if matches!(event, Event::Eof) {
            return events;
        }
        events += 1;
    }
}
