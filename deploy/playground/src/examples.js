// The initial tabs: examples that lead from a receiver to a complete gate, with a live subscription.

import createGroup from "./examples/create_group.graphql";
import createGroupVariables from "./examples/create_group.json";
import createReceiver from "./examples/create_receiver.graphql";
import createReceiverVariables from "./examples/create_receiver.json";
import gate from "./examples/gate.graphql";
import gateVariables from "./examples/gate.json";
import recentEvents from "./examples/recent_events.graphql";
import recentEventsVariables from "./examples/recent_events.json";
import recordEvent from "./examples/record_event.graphql";
import recordEventVariables from "./examples/record_event.json";
import watch from "./examples/watch.graphql";

const text = (value) => JSON.stringify(value, null, 2);

export const EXAMPLES = [
  { query: createReceiver, variables: text(createReceiverVariables) },
  { query: createGroup, variables: text(createGroupVariables) },
  { query: watch },
  { query: recordEvent, variables: text(recordEventVariables) },
  { query: recentEvents, variables: text(recentEventsVariables) },
  { query: gate, variables: text(gateVariables) },
];
