//! What one has to know to consume the topics, in words.

pub(super) const INTRODUCTION: &str = "\
<p>Everything that happens in Parlance is an event, and every event is a record in Kafka, for ever. What a record says is \
described here and in <a href=\"/asyncapi.json\">AsyncAPI</a>; each version of each type has a JSON Schema. The calls that \
clients make are <a href=\"/docs\">elsewhere</a>.</p>
";

pub(super) const CONSUMING: &str = "\
<h2 id=\"consuming\">How to consume</h2>
<p>Records are CloudEvents 1.0 in binary mode: attributes in the headers, what happened as JSON in the value.</p>
<ul>
<li><b>Start from nothing, at any time.</b> No record is ever removed or compacted away: read from the earliest offset and you \
have all there is.
<li><b>Order.</b> The key decides the partition. Under one key, and in one partition, records are in the order in which things \
happened. Between partitions there is none, and <code>ce_time</code> makes none.
<li><b>Drop repeats.</b> Keep the highest <code>ce_sequence</code> of each partition together with your state, in one \
transaction. A record whose own is not higher came before: drop it. It has the same <code>ce_id</code> each time.
<li><b>Notice a gap.</b> In a partition <code>ce_sequence</code> counts from 1, and no record's exceeds the highest before it by \
more than one. One that does means that something was lost on the way to you: stop, and read again.
<li><b>Wiped topics.</b> A topic that was emptied is filled again from 1: offsets begin anew, sequences stay what they were. Where \
your offset is gone, go to the earliest and drop what you have.
<li><b>Replays.</b> Who runs Parlance may have records published again; they carry <code>ce_replay</code>, and are repeats like \
all others.
<li><b>Null.</b> All members that a version requires are there; an absent value is null. So is what was deleted or erased, in \
records that are published after that: whoever starts from nothing later finds less than you did, and nothing else.
<li><b>Versions.</b> <code>ce_dataschema</code> names the version that a record follows. A version only ever gains optional members: \
ignore those that you do not know, and expect none that your version does not require. Ignore types that you do not know. \
Anything else comes in new topics beside these. A schema's <code>$id</code> is the same on every installation; what an \
installation serves at the path of <code>ce_dataschema</code> is the same document.
<li><b>Why it happened.</b> <code>ce_correlationid</code> is the same on all that one command caused, <code>ce_causationid</code> names \
the event before, and <code>traceparent</code> its trace.
</ul>
";
