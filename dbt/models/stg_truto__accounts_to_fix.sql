with accounts as (
  select
    *,
    status = 'active' as is_active,
    coalesce(forbidden_at, forbidden_resource, missing_scopes) is not null as is_forbidden
  from {{ ref('stg_truto__accounts') }}
)

select
  integrated_account_id,
  customer,
  tool,
  tool_label,
  status,
  case
    when status = 'needs_reauth' then 'the customer must reconnect'
    when status = 'connecting' then 'the customer has not finished connecting'
    when not is_active then 'see its status in Truto'
    else 'the customer must reconnect and grant the permission, unless that was done since'
  end as what_to_do,
  case
    when not is_active then last_error
    else concat('denied: ', forbidden_resource, '; missing: ', coalesce(missing_scopes, 'not reported'))
  end as reason,
  forbidden_at,
  updated_at
from accounts
where not is_active or is_forbidden
