{#- Run dbt's relationships test. The syntax of its arguments changed after dbt 1.9, so call the macro. -#}
{% test relationships_to_accounts(model, column_name) -%}
  {{ test_relationships(model, column_name, ref('stg_truto__accounts'), 'integrated_account_id') }}
{%- endtest %}
