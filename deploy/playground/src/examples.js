// The tabs that a visitor finds: one walk from a receiver to a completed gate, seen live.

const variables = (value) => JSON.stringify(value, null, 2);

const UNIT = { name: "webshop", version: "1.4.0", release: "2026.10", platformId: "linux-amd64", package: "oci" };

const CREATE_RECEIVER = `# 1. A receiver is a kind of event, with the
#    JSON Schema that its payloads must meet.
#    Run this with Ctrl-Enter and keep the id.
mutation CreateReceiver($input: CreateEventReceiverInput!) {
  createEventReceiver(input: $input) {
    eventReceiver { id name type version }
  }
}
`;

const CREATE_GROUP = `# 2. A group of receivers is a gate. Put the
#    receiver's id into the variables below.
mutation CreateGroup($input: CreateEventReceiverGroupInput!) {
  createEventReceiverGroup(input: $input) {
    eventReceiverGroup { id name enabled }
  }
}
`;

const WATCH = `# 3. Everything that happens, in order, live.
#    Run this, then record an event from
#    another window and see it arrive.
subscription Watch {
  stream {
    __typename
    cursor
    ... on EventRecorded { id kind time event { id name version success } }
    ... on GateCompleted { id kind time }
  }
}
`;

const RECORD_EVENT = `# 4. An event: this build passed. The answer
#    says which gates it completed.
mutation RecordEvent($input: CreateEventInput!) {
  createEvent(input: $input) {
    event { id name version success recordedAt }
    cursor
    gates { complete since }
    repeated
  }
}
`;

const RECENT = `# 5. The newest events, a page at a time: give
#    endCursor as "after" for the next page.
query RecentEvents($first: Int, $after: String) {
  events(first: $first, after: $after) {
    nodes { id name version success description createdAt eventReceiver { name } }
    pageInfo { hasNextPage endCursor }
  }
}
`;

const GATE = `# 6. Is the gate complete for this unit, and
#    if not, which member is missing?
query Gate($groupId: ID!, $unit: UnitInput!) {
  gate(groupId: $groupId, unit: $unit) {
    complete
    since
    members { status receiver { name } event { id createdAt } }
  }
}
`;

export const EXAMPLES = [
  {
    query: CREATE_RECEIVER,
    variables: variables({
      input: {
        name: "build",
        type: "io.example.build",
        version: "1.0.0",
        description: "A build of a component",
        schema: { type: "object", properties: { commit: { type: "string" } }, required: ["commit"] },
      },
    }),
  },
  {
    query: CREATE_GROUP,
    variables: variables({
      input: {
        name: "release",
        version: "1.0.0",
        description: "What a release needs",
        eventReceiverIds: ["the receiver's id"],
      },
    }),
  },
  { query: WATCH },
  {
    query: RECORD_EVENT,
    variables: variables({
      input: {
        ...UNIT,
        description: "Built on main",
        payload: { commit: "9f3c2ab" },
        success: true,
        eventReceiverId: "the receiver's id",
      },
    }),
  },
  { query: RECENT, variables: variables({ first: 10 }) },
  { query: GATE, variables: variables({ groupId: "the group's id", unit: UNIT }) },
];
