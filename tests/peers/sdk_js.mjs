// Microsoft's own JavaScript SDK against the gateway: unmodified, over TLS, with a workflow's token as its credential.
// `sdk_js.py` starts it with GATEWAY, TOKEN, OWN_TOKEN and NODE_EXTRA_CA_CERTS set. It prints one JSON line per check.
//
// Every public operation of the SDK on data that a workload may do, and what the gateway refuses of the rest. What the
// stand-in cannot show:
// * Several physical partitions: the emulator has one for each container here.
// * `incr` of a number that has become fractional by a whole one: the emulator answers 400, "expected integer number".
// * What a procedure computes: the stand-in answers with the arguments.
import assert from 'node:assert/strict';
import { BulkOperationType, ChangeFeedStartFrom, CosmosClient } from '@azure/cosmos';

const connect = (token) => new CosmosClient({
  endpoint: process.env.GATEWAY,
  aadCredentials: { getToken: async () => ({ token, expiresOnTimestamp: Date.now() + 300_000 }) },
});
const client = connect(process.env.TOKEN);
const own = connect(process.env.OWN_TOKEN).database('shop').container('orders');
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

  async 'a condition on each write that takes one'() {
    const stale = (await orders.items.upsert(order(30))).resource._etag;
    await orders.items.upsert(order(30, { status: 'moved' }));
    const item = orders.item('j-30', 't1');
    const rise = [{ op: 'incr', path: '/total', value: 1 }];
    const writes = [
      (accessCondition) => item.replace(order(30), { accessCondition }),
      (accessCondition) => orders.items.upsert(order(30), { accessCondition }),
      (accessCondition) => item.patch(rise, { accessCondition }),
      (accessCondition) => item.delete({ accessCondition }),
    ];
    for (const write of writes) await assert.rejects(write({ type: 'IfMatch', condition: stale }), status(412));
    for (const write of writes) await write({ type: 'IfMatch', condition: (await item.read()).etag });
    assert.equal((await item.read()).statusCode, 404);
  },

  async 'a read that is answered only when the etag has moved'() {
    const { resource } = await orders.items.upsert(order(31));
    const unchanged = { accessCondition: { type: 'IfNoneMatch', condition: resource._etag } };
    assert.equal((await orders.item('j-31', 't1').read(unchanged)).statusCode, 304);
    await orders.items.upsert(order(31, { status: 'moved' }));
    assert.equal((await orders.item('j-31', 't1').read(unchanged)).resource.status, 'moved');
  },

  async 'every patch operation, and a patch with a condition'() {
    await orders.items.upsert(order(32, { tags: ['a'], gone: 1 }));
    const item = orders.item('j-32', 't1');
    await item.patch([
      { op: 'add', path: '/tags/-', value: 'ü' },
      { op: 'set', path: '/status', value: 'new' },
      { op: 'replace', path: '/status', value: 'paid' },
      { op: 'incr', path: '/total', value: 2 },
      { op: 'remove', path: '/gone' },
    ]);
    const { tags, status: found, total, gone } = (await item.read()).resource;
    assert.deepEqual({ tags, found, total, gone }, { tags: ['a', 'ü'], found: 'paid', total: 34, gone: undefined });
    const operations = [{ op: 'incr', path: '/total', value: 1 }];
    await item.patch({ condition: "from c where c.status = 'paid'", operations });
    await assert.rejects(item.patch({ condition: "from c where c.status = 'new'", operations }), status(412));
    assert.equal((await item.read()).resource.total, 35);
  },

  async 'read all items, in pages'() {
    const iterator = orders.items.readAll({ maxItemCount: 4 });
    const seen = [];
    while (iterator.hasMoreResults()) {
      const { resources } = await iterator.fetchNext();
      assert.ok((resources ?? []).length <= 4);
      seen.push(...(resources ?? []).map((item) => `${item.tenant}/${item.id}`));
    }
    assert.equal(new Set(seen).size, seen.length, 'each once');
    for (const id of ['t1/j-32', 't2/j-10']) assert.ok(seen.includes(id), `${id} in ${seen}`);
  },

  async 'a query goes on from a continuation'() {
    const query = "SELECT VALUE c.total FROM c WHERE c.kind = 'js'";
    const options = { partitionKey: 't2', maxItemCount: 2 };
    const first = await orders.items.query(query, options).fetchNext();
    const rest = await orders.items.query(query, { ...options, continuationToken: first.continuationToken }).fetchAll();
    assert.deepEqual([...first.resources, ...rest.resources].sort(), [10, 12, 14]);
  },

  async 'aggregates, TOP, OFFSET, DISTINCT, GROUP BY and JOIN over all partitions'() {
    const ask = async (text, options) => (await orders.items.query(text, options).fetchAll()).resources;
    const of = "FROM c WHERE c.kind = 'js'";
    const aggregates = { 'COUNT(1)': 5, 'SUM(c.total)': 60, 'AVG(c.total)': 12, 'MIN(c.total)': 10, 'MAX(c.total)': 14 };
    for (const [aggregate, value] of Object.entries(aggregates)) {
      assert.deepEqual(await ask(`SELECT VALUE ${aggregate} ${of}`), [value], aggregate);
    }
    assert.deepEqual(await ask(`SELECT TOP 2 VALUE c.total ${of} ORDER BY c.total DESC`), [14, 13]);
    assert.deepEqual(await ask(`SELECT VALUE c.total ${of} ORDER BY c.total OFFSET 1 LIMIT 2`), [11, 12]);
    assert.deepEqual(await ask(`SELECT DISTINCT VALUE c.kind ${of}`), ['js']);
    const groups = await ask(`SELECT c.tenant, COUNT(1) AS n ${of} GROUP BY c.tenant`);
    assert.deepEqual(groups.sort((a, b) => (a.tenant < b.tenant ? -1 : 1)), [{ tenant: 't1', n: 2 }, { tenant: 't2', n: 3 }]);
    const joined = "SELECT VALUE t FROM c JOIN t IN c.tags WHERE c.id = 'j-32'";
    assert.deepEqual(await ask(joined, { partitionKey: 't1' }), ['a', 'ü']);
  },

  async 'a query plan by itself'() {
    const plan = await orders.getQueryPlan('SELECT VALUE COUNT(1) FROM c');
    assert.deepEqual(plan.result.queryInfo.aggregates, ['Count']);
  },

  async 'patches and conditions inside a batch'() {
    const etag = (await orders.items.upsert(order(40))).resource._etag;
    const operations = [{ op: 'incr', path: '/total', value: 1 }];
    const patch = { operationType: BulkOperationType.Patch, id: 'j-40', resourceBody: { operations } };
    const read = { operationType: BulkOperationType.Read, id: 'j-40' };
    const done = await orders.items.batch([patch, read], 't1');
    assert.deepEqual(done.result.map((one) => one.statusCode), [200, 200]);
    assert.equal(done.result[1].resourceBody.total, 41);
    const stale = { operationType: BulkOperationType.Replace, id: 'j-40', resourceBody: order(40), ifMatch: etag };
    const undone = await orders.items.batch([patch, stale], 't1');
    assert.deepEqual(undone.result.map((one) => one.statusCode), [424, 412]);
    assert.equal((await orders.item('j-40', 't1').read()).resource.total, 41);
  },

  async 'bulk, which is not atomic: 400, and nothing is done'() {
    const create = (number) => ({ operationType: BulkOperationType.Create, partitionKey: 't1', resourceBody: order(number) });
    await assert.rejects(orders.items.bulk([create(50), create(51)]), /non-atomic bulk is not accepted/);
    assert.equal((await orders.item('j-50', 't1').read()).statusCode, 404);
  },

  async 'the container, its partition key ranges and its feed ranges'() {
    assert.deepEqual((await orders.read()).resource.partitionKey.paths, ['/tenant']);
    assert.deepEqual((await orders.getPartitionKeyDefinition()).resource.paths, ['/tenant']);
    assert.deepEqual((await orders.readPartitionKeyRanges().fetchAll()).resources.map((one) => one.id), ['0']);
    assert.equal((await orders.getFeedRanges()).length, 1);
  },

  async 'the change feed of the container, of its feed range, and on from a continuation'() {
    const read = async (changeFeedStartFrom, enough) => {
      const iterator = orders.items.getChangeFeedIterator({ changeFeedStartFrom, maxItemCount: 3 });
      const seen = [];
      for await (const page of iterator.getAsyncIterator()) {
        if (page.statusCode === 304 || seen.length >= enough) return [seen, page.continuationToken];
        seen.push(...page.result.map((item) => item.id));
      }
    };
    const [all] = await read(ChangeFeedStartFrom.Beginning(), Infinity);
    assert.ok(all.includes('j-40') && all.includes('j-10'), `in ${all}`);
    const [range] = await orders.getFeedRanges();
    assert.deepEqual((await read(ChangeFeedStartFrom.Beginning(range), Infinity))[0], all);
    const [, now] = await read(ChangeFeedStartFrom.Now(), Infinity);
    await orders.items.upsert(order(52));
    assert.deepEqual((await read(ChangeFeedStartFrom.Continuation(now), Infinity))[0], ['j-52']);
  },

  async 'a stored procedure'() {
    const ran = await orders.scripts.storedProcedure('settle').execute('t1', ['j-1', 7]);
    assert.deepEqual(ran.resource, ['j-1', 7]);
  },

  async 'SQL that is none, and an item that is too large'() {
    await assert.rejects(orders.items.query('SELEC', { partitionKey: 't1' }).fetchAll(), status(400));
    await assert.rejects(orders.items.create(order(53, { fat: 'x'.repeat(2_100_000) })), status(413));
  },

  async "the regions are the gateway's own address"() {
    const { resource } = await client.getDatabaseAccount();
    const places = [...resource.readableLocations, ...resource.writableLocations];
    const addresses = new Set(places.map((place) => new URL(place.databaseAccountEndpoint).origin));
    assert.deepEqual([...addresses], [new URL(process.env.GATEWAY).origin]);
  },

  async 'whatever is not the data plane: 404'() {
    const shop = client.database('shop');
    for (const call of [
      () => client.databases.create({ id: 'other' }),
      () => client.databases.readAll().fetchAll(),
      () => shop.read(),
      () => shop.delete(),
      () => shop.containers.readAll().fetchAll(),
      () => shop.containers.create({ id: 'other', partitionKey: '/tenant' }),
      () => orders.replace({ id: 'orders', partitionKey: { paths: ['/tenant'] }, defaultTtl: 1 }),
      () => orders.delete(),
      () => shop.users.readAll().fetchAll(),
      () => orders.conflicts.readAll().fetchAll(),
      () => orders.deleteAllItemsForPartitionKey('t1'),
      () => orders.scripts.storedProcedures.create({ id: 's', body: 'function () {}' }),
      () => orders.scripts.triggers.readAll().fetchAll(),
      () => orders.scripts.userDefinedFunctions.readAll().fetchAll(),
      () => client.offers.readAll().fetchAll(),
    ]) {
      await assert.rejects(call(), (error) => error.code === 404 && !error.substatus, call.toString());
    }
  },

  async 'what would change an operation past the policy: 400'() {
    for (const options of [{ preTriggerInclude: 't' }, { postTriggerInclude: 't' }, { indexingDirective: 'Exclude' }]) {
      await assert.rejects(orders.items.create(order(54), options), status(400));
    }
    assert.equal((await orders.item('j-54', 't1').read()).statusCode, 404);
  },

  async 'a grant on one partition: this one, and no other'() {
    const text = 'SELECT VALUE c.tenant FROM c';
    assert.equal((await own.item('j-40', 't1').read()).resource.total, 41);
    for (const call of [
      () => own.item('j-10', 't2').read(),
      () => own.item('j-10', 't2').delete(),
      () => own.items.upsert(order(10, { tenant: 't2' })),
      () => own.items.query(text, { partitionKey: 't2' }).fetchAll(),
    ]) {
      await assert.rejects(call(), status(403), call.toString());
    }
    // The SDK keeps the text of what refuses a batch, and not its status.
    const batch = own.items.batch([{ operationType: BulkOperationType.Delete, id: 'j-10' }], 't2');
    await assert.rejects(batch, /No grant allows batch on shop\/orders/);
    for (const iterator of [own.items.query(text), own.items.query(text, { partitionKey: 't1' })]) {
      assert.deepEqual(new Set((await iterator.fetchAll()).resources), new Set(['t1']));
    }
    const feed = (await own.items.readAll().fetchAll()).resources.map((item) => item.tenant);
    assert.deepEqual(new Set(feed), new Set(['t1']));
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
