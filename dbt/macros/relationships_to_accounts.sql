{#- dbt's relationships; its arguments are written in one way up to dbt 1.9, and in another since. -#}
{% test relationships_to_accounts(model, column_name) -%}
  {{ test_relationships(model, column_name, ref('stg_truto__accounts'), 'integrated_account_id') }}
{%- endtest %}
