//! Messages: pages, one, receipts.

use schemas::rest::{Delivery, MemberState, MessageView, Page};
use uuid::Uuid;

use super::{World, at, seqs};

#[tokio::test]
async fn a_message_is_shown_whole() {
    let world = World::new().await;
    let (ann, ben) = (world.user("ann", None).await, world.user("ben", None).await);
    let direct = world.conversation("direct", "all", &[ann, ben]).await;
    let first = world.message(direct, 2, ann).await;
    let answer = Uuid::now_v7();
    sqlx::query(
        "INSERT INTO read.timeline (conversation_id, seq, topic_shard, position, at, message_id, sender_id, type,
                                    content, reply_to, mentions)
         VALUES ($1, 3, 3, 3, $2, $3, $4, 'text', $5, $6, $7)",
    )
    .bind(direct)
    .bind(at(3))
    .bind(answer)
    .bind(ben)
    .bind("Grüße 👋\n\"<b>\" \u{1}")
    .bind(first)
    .bind(vec![ann])
    .execute(world.pool())
    .await
    .unwrap();
    let path = format!("/v1/conversations/{direct}/messages/{answer}");
    let shown = world.get(ann, &path).await;
    let expected = serde_json::json!({
        "message_id": answer, "conversation_id": direct, "seq": 3, "sender_id": ben, "type": "text",
        "content": "Grüße 👋\n\"<b>\" \u{1}", "file_ids": [], "reply_to": first, "mentions": [ann],
        "created_at": "2027-01-15T08:00:03.000Z", "edited_at": null, "deleted": false, "reactions": [],
        "status": "sent",
    });
    assert_eq!(shown.json(), expected);
    let page = world.get(ben, &format!("/v1/conversations/{direct}/messages?after=2")).await;
    assert_eq!(page.json(), serde_json::json!({ "items": [expected], "next_cursor": null }));

    let elsewhere = world.conversation("group", "all", &[ann]).await;
    let path = |message| format!("/v1/conversations/{elsewhere}/messages/{message}");
    world.get(ann, &path(answer)).await.is_problem(404, None);
    world.get(ann, &format!("{}/receipts", path(answer))).await.is_problem(404, None);
    world.get(ann, &path(Uuid::now_v7())).await.is_problem(404, None);
}

#[tokio::test]
async fn pages_go_both_ways_without_gap_or_double_while_messages_come_in() {
    let world = World::new().await;
    let (ann, ben) = (world.user("ann", None).await, world.user("ben", None).await);
    let group = world.conversation("group", "all", &[ann, ben]).await;
    let mut sent = Vec::new();
    let mut head = 1;
    for nth in 0..30 {
        head += 1;
        if nth % 5 == 4 {
            world.event(group, head).await;
        } else {
            world.message(group, head, if nth % 2 == 0 { ann } else { ben }).await;
            sent.push(head.cast_unsigned());
        }
    }
    let path = format!("/v1/conversations/{group}/messages");
    let newest: Page<MessageView> = world.get(ann, &format!("{path}?limit=7")).await.is();
    assert_eq!(seqs(&newest.items), sent[sent.len() - 7..]);

    // Backward: what comes in meanwhile is beyond the first page, and so never in the way.
    let mut pages = vec![newest];
    while let Some(cursor) = pages.last().and_then(|page| page.next_cursor.clone()) {
        head += 1;
        world.message(group, head, ben).await;
        pages.push(world.get(ann, &format!("{path}?limit=7&cursor={cursor}")).await.is());
    }
    assert_eq!(pages.len(), sent.len().div_ceil(7));
    pages.reverse();
    assert_eq!(seqs(pages.iter().flat_map(|page| &page.items)), sent);

    // Forward: it goes on into what came in meanwhile; the parameter that it began with may stand there still.
    let (mut found, mut cursor, mut extra) = (Vec::new(), String::new(), 3);
    loop {
        let page: Page<MessageView> = world.get(ben, &format!("{path}?after=0&limit=4{cursor}")).await.is();
        found.extend(seqs(&page.items));
        let Some(next) = page.next_cursor else { break };
        cursor = format!("&cursor={next}");
        if extra > 0 {
            extra -= 1;
            head += 1;
            world.message(group, head, ann).await;
        }
    }
    let all: Vec<u64> = found.clone();
    assert_eq!(all[..sent.len()], sent[..]);
    assert!(found.is_sorted_by(|one, other| one < other));
    assert_eq!(found.last(), Some(&head.cast_unsigned()));

    let between: Page<MessageView> = world.get(ann, &format!("{path}?before=4")).await.is();
    assert_eq!((seqs(&between.items), between.next_cursor), (vec![2, 3], None));
    let none: Page<MessageView> = world.get(ann, &format!("{path}?before=0")).await.is();
    assert_eq!(none.items.len(), 0);
    let none: Page<MessageView> = world.get(ann, &format!("{path}?after=18446744073709551615")).await.is();
    assert_eq!((none.items.len(), none.next_cursor), (0, None));
    world.get(ann, &format!("{path}?before=4&after=2")).await.is_problem(422, None);
    world.get(ann, &format!("{path}?before=x")).await.is_problem(422, Some("before"));
    world.get(ann, &format!("{path}?after=-1")).await.is_problem(422, Some("after"));
}

#[tokio::test]
async fn who_joined_later_sees_what_history_says() {
    let world = World::new().await;
    let (ann, ben) = (world.user("ann", None).await, world.user("ben", None).await);
    let group = world.conversation("group", "since_join", &[ann]).await;
    let before = world.message(group, 2, ann).await;
    world.join(group, ben, 3, "member").await;
    let path = format!("/v1/conversations/{group}/messages");
    let page: Page<MessageView> = world.get(ben, &path).await.is();
    assert_eq!(page.items, []);
    let hidden = world.one(ben, group).await;
    assert_eq!((hidden.last_message, hidden.unread, hidden.last_seq), (None, 0, 3));
    world.get(ben, &format!("{path}/{before}")).await.is_problem(404, None);
    world.get(ben, &format!("{path}/{before}/receipts")).await.is_problem(404, None);
    world.message(group, 4, ann).await;
    let page: Page<MessageView> = world.get(ben, &format!("{path}?after=0")).await.is();
    assert_eq!(seqs(&page.items), [4]);
    assert_eq!(world.one(ben, group).await.unread, 1);
    let anns: Page<MessageView> = world.get(ann, &path).await.is();
    assert_eq!(seqs(&anns.items), [2, 4]);

    sqlx::query("UPDATE read.conversations SET history = 'all'").execute(world.pool()).await.unwrap();
    let page: Page<MessageView> = world.get(ben, &path).await.is();
    assert_eq!(seqs(&page.items), [2, 4]);
    assert_eq!(world.one(ben, group).await.unread, 1, "watermarks start at the own joining");
}

#[tokio::test]
async fn receipts_of_a_message_are_of_those_it_waits_for() {
    let world = World::new().await;
    let mut members = Vec::new();
    for nth in 0..6 {
        members.push(world.user(&format!("member{nth}"), None).await);
    }
    let group = world.conversation("group", "all", &members[..5]).await;
    let message = world.message(group, 2, members[0]).await;
    world.join(group, members[5], 3, "member").await;
    world.receipt(group, members[1], 2, 2).await;
    world.receipt(group, members[2], 2, 0).await;
    world.receipt(group, members[3], 1, 1).await;
    let path = format!("/v1/conversations/{group}/messages/{message}/receipts");
    let (pages, counts) = world.pages::<MemberState>(members[0], &format!("{path}?limit=3")).await;
    assert_eq!(counts, [3, 1]);
    let mut states: Vec<_> = pages.into_iter().flat_map(|page| page.items).collect();
    states.sort_unstable_by_key(|state| state.user_id);
    let found: Vec<_> = states.iter().map(|state| (state.user_id, state.state)).collect();
    let expected = [Delivery::Read, Delivery::Delivered, Delivery::Sent, Delivery::Sent];
    assert_eq!(found, members[1..5].iter().copied().zip(expected).collect::<Vec<_>>());
    assert_eq!(states.iter().map(|state| state.delivered_at.is_some()).collect::<Vec<_>>(), [true, true, false, false]);
    assert_eq!(states.iter().map(|state| state.read_at.is_some()).collect::<Vec<_>>(), [true, false, false, false]);
    // Nobody to wait for is no reason to know nothing of it.
    let alone = world.conversation("group", "all", &members[..1]).await;
    let message = world.message(alone, 2, members[0]).await;
    let page: Page<MemberState> =
        world.get(members[0], &format!("/v1/conversations/{alone}/messages/{message}/receipts")).await.is();
    assert_eq!(page.items, []);
}
