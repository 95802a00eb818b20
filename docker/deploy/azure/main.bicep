// The Azure side of stepgate: the account, a database with its containers, the container for revocations, and the diagnostic
// settings whose records carry the permission id and the activity id, so that Azure's log and the audit log can be joined.
//
// Users and permissions are kept below the database by the gateway itself; they need no resource here.

@description('Name of the account; part of its address.')
param accountName string

@description('Write region first, then those to read from.')
param locations array = [ 'westeurope', 'northeurope' ]

@description('Database of the workflows.')
param databaseName string = 'shop'

@description('Containers of the workflows: name, partition key paths, and throughput.')
param containers array = [
  { name: 'orders', partitionKey: [ '/tenant' ], throughput: 1000 }
]

@description('Log Analytics workspace that the diagnostic log goes to.')
param workspaceId string

@description('Addresses of the gateways; empty: any.')
param gatewayAddresses array = []

resource account 'Microsoft.DocumentDB/databaseAccounts@2024-11-15' = {
  name: accountName
  location: locations[0]
  kind: 'GlobalDocumentDB'
  properties: {
    databaseAccountOfferType: 'Standard'
    locations: [for (location, index) in locations: {
      locationName: location
      failoverPriority: index
      isZoneRedundant: true
    }]
    consistencyPolicy: { defaultConsistencyLevel: 'Session' }
    enableAutomaticFailover: true
    minimalTlsVersion: 'Tls12'
    // Resource tokens are minted with the account key. Set it to true, and `kind: entra` in the gateway's configuration, where keys are not allowed.
    disableLocalAuth: false
    // The gateway needs no right to change databases or containers.
    disableKeyBasedMetadataWriteAccess: true
    ipRules: [for address in gatewayAddresses: { ipAddressOrRange: address }]
  }
}

resource database 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases@2024-11-15' = {
  parent: account
  name: databaseName
  properties: { resource: { id: databaseName } }
}

resource container 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers@2024-11-15' = [for item in containers: {
  parent: database
  name: item.name
  properties: {
    resource: {
      id: item.name
      partitionKey: {
        paths: item.partitionKey
        kind: length(item.partitionKey) == 1 ? 'Hash' : 'MultiHash'
        version: 2
      }
    }
    options: { autoscaleSettings: { maxThroughput: item.throughput } }
  }
}]

// `state: { kind: cosmos, database: stepgate, container: state }`
resource ownDatabase 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases@2024-11-15' = {
  parent: account
  name: 'stepgate'
  properties: { resource: { id: 'stepgate' } }
}

resource state 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers@2024-11-15' = {
  parent: ownDatabase
  name: 'state'
  properties: {
    resource: { id: 'state', partitionKey: { paths: [ '/id' ], kind: 'Hash', version: 2 } }
    options: { autoscaleSettings: { maxThroughput: 1000 } }
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: account
  name: 'stepgate'
  properties: {
    workspaceId: workspaceId
    logAnalyticsDestinationType: 'Dedicated'
    logs: [
      { category: 'DataPlaneRequests', enabled: true }
      { category: 'ControlPlaneRequests', enabled: true }
      { category: 'PartitionKeyRUConsumption', enabled: true }
    ]
    metrics: [ { category: 'Requests', enabled: true } ]
  }
}

@description('What `cosmos.endpoint` is.')
output endpoint string = account.properties.documentEndpoint
