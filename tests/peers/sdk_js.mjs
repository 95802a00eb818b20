// Microsoft's own JavaScript SDK against the gateway: unmodified, over TLS, with a workflow's token as its credential.
// `sdk_js.py` starts it with GATEWAY, TOKEN and NODE_EXTRA_CA_CERTS set. It prints one JSON line per check.
import assert from 'node:assert/strict';
import { BulkOperationType, ChangeFeedStartFrom, CosmosClient } from '@azure/cosmos';

const client = new CosmosClient({
  endpoint: process.env.GATEWAY,
  aadCredentials: { getToken: async () => ({ token: process.env.TOKEN, expiresOnTimestamp: Date.now() + 300_000 }) },
});
const orders = client.database('shop').container('orders');
const vault = client.database('shop').container('vault');
const order = (number, more = {}) => ({ id: `j-${number}`, tenant: 't1', total: number, ...more });
const status = (code) => (error) => error.code === code;

const checks = {
  async 'create, read, replace, upsert and delete'() {
    await orders.items.create(order(1));
    const item = orders.item('j-1', 't1');
    assert.equal((await item.read()).resource.total, 1);
    await item.replace(order(1, { status: 'paid' }));
    assert.equal((await item.read()).resource.status, 'paid');
    await orders.items.upsert(order(1, { status: 'sent' }));
    assert.equal((await item.read()).resource.status, 'sent');
    await item.delete();
    assert.equal((await item.read()).statusCode, 404);
  },

  async 'what exists already, and an etag that moved'() {
    const { resource } = await orders.items.create(order(2));
    await assert.rejects(orders.items.create(order(2)), status(409));
    await orders.items.upsert(order(2, { status: 'moved' }));
    const accessCondition = { type: 'IfMatch', condition: resource._etag };
    await assert.rejects(orders.item('j-2', 't1').replace(order(2), { accessCondition }), status(412));
  },

  async 'patch'() {
    await orders.items.create(order(3));
    await orders.item('j-3', 't1').patch([{ op: 'incr', path: '/total', value: 4 }]);
    assert.equal((await orders.item('j-3', 't1').read()).resource.total, 7);
  },

  async 'a query of one partition in pages, and of all'() {
    for (let number = 10; number < 15; number++) {
      await orders.items.upsert(order(number, { kind: 'js', tenant: number % 2 ? 't1' : 't2' }));
    }
    const query = { query: 'SELECT VALUE c.total FROM c WHERE c.kind = @kind', parameters: [{ name: '@kind', value: 'js' }] };
    const pages = orders.items.query(query, { partitionKey: 't2', maxItemCount: 2 });
    assert.equal((await pages.fetchNext()).resources.length, 2);
    assert.equal((await pages.fetchNext()).resources.length, 1);
    const sorted = { ...query, query: `${query.query} ORDER BY c.total` };
    assert.deepEqual((await orders.items.query(sorted).fetchAll()).resources, [10, 11, 12, 13, 14]);
  },

  async 'a batch, and one that rolls back'() {
    const create = (number) => ({ operationType: BulkOperationType.Create, resourceBody: order(number) });
    const done = await orders.items.batch([create(20), create(21)], 't1');
    assert.deepEqual(done.result.map((one) => one.statusCode), [201, 201]);
    const undone = await orders.items.batch([create(22), create(20)], 't1');
    assert.deepEqual(undone.result.map((one) => one.statusCode), [424, 409]);
    assert.equal((await orders.item('j-22', 't1').read()).statusCode, 404);
  },

  async 'the change feed of one partition'() {
    const feed = orders.items.getChangeFeedIterator({ changeFeedStartFrom: ChangeFeedStartFrom.Beginning('t1') });
    const seen = [];
    for await (const page of feed.getAsyncIterator()) {
      if (page.statusCode === 304) break;
      seen.push(...page.result.map((item) => item.id));
    }
    assert.ok(seen.includes('j-20'), `in ${seen}`);
  },

  async 'a container that no grant names'() {
    await assert.rejects(vault.item('v1', 't1').read(), status(403));
  },
};

for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(JSON.stringify({ name, failure: null }));
  } catch (error) {
    console.log(JSON.stringify({ name, failure: String(error.stack ?? error) }));
  }
}
