select
  id as integrated_account_id,
  tenant_id as customer,
  integration as tool,
  coalesce(integration_label, integration) as tool_label,
  status,
  authentication_method,
  is_sandbox,
  region,
  last_error,
  {{ json_text('last_forbidden_error', ['occurred_at']) }} as forbidden_at,
  {{ json_text('last_forbidden_error', ['resource']) }} as forbidden_resource,
  {{ json_text('last_forbidden_error', ['missing_scopes']) }} as missing_scopes,
  created_at as connected_at,
  updated_at
from ({{ current_rows(source('truto', 'integrated_accounts'), 'id') }}) as accounts
