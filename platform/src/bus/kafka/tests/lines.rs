//! Lines stay in their order, for whoever reads them from the beginning.

use super::*;
use crate::bus::kafka::LineTopic;

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_added_and_read_from_the_beginning() {
    let broker = Broker::shared().await;
    let name = format!("{}.lines", Uuid::new_v4().simple());
    let mut topic = LineTopic::new(broker.address(), &name);
    assert!(topic.tail().await.unwrap().is_empty(), "there is no topic");
    assert!(topic.page().await.unwrap().is_empty());
    topic.ensure().await.unwrap();
    topic.ensure().await.unwrap();
    assert!(topic.tail().await.unwrap().is_empty());
    let lines: Vec<String> = (0..150).map(|n| format!("line {n}")).collect();
    topic.append(&lines).await.unwrap();
    assert_eq!(topic.tail().await.unwrap(), lines[50..]);
    for _ in 0..2 {
        let mut read = Vec::new();
        while read.len() < lines.len() {
            let page = topic.page().await.unwrap();
            assert!(!page.is_empty());
            read.extend(page);
        }
        assert_eq!(read, lines);
        assert!(topic.page().await.unwrap().is_empty());
        topic.rewind();
    }
    // Whoever reads finds what was added since.
    while !topic.page().await.unwrap().is_empty() {}
    LineTopic::new(broker.address(), &name).append(&["more".to_owned()]).await.unwrap();
    assert_eq!(topic.page().await.unwrap(), ["more"]);
}
